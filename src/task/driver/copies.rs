//! What is written for others and decides nothing: from where on the next process would read, into the spool; lows, into Kafka.
//!
//! Owns: how often, and that a failure stops nothing at the end. Does not own: what a low or a floor is.

use super::*;

/// Lows are copied to Kafka's group at most this often, and all of them at least each hour: a group without members
/// forgets offsets that are not committed again (`offsets.retention.minutes`, some brokers keep them for hours only).
const COPY_LOWS_MS: std::ops::Range<i64> = 5_000..3_600_000;
/// The last copy at the end of a task must not hold it up.
const LAST_COPY: Duration = Duration::from_secs(5);

impl Driver<'_> {
    /// For the next process on this machine; nothing is written when nothing happens.
    pub(super) fn write_floor(&mut self) -> Result<(), TaskError> {
        let floor = self.core.floor(self.now_ms());
        if let Some(floor) = &floor
            && self.floor.as_ref().is_none_or(|known| self.stopping || floor.is_news(known))
        {
            self.spool.write_floor(floor.clone())?;
        }
        self.floor = floor.or_else(|| self.floor.take());
        Ok(())
    }

    /// The process stops: what can't be left to the next one must not keep uploads from their end.
    pub(super) fn only_leaves_spool(&self) -> bool {
        self.stopping && self.context.spool.is_kept()
    }

    /// Before the log decides of files that lie in the spool, and before they are finished.
    pub(super) fn write_spool_journal(&self) -> Result<(), TaskError> {
        match self.spool.write_journal() {
            Err(error) if self.only_leaves_spool() => {
                tracing::warn!(connector = self.context.connector.name, %error, "the spool is not left in order");
                Ok(())
            }
            written => Ok(written?),
        }
    }

    /// Without it the next process reads more; nothing else depends on it.
    pub(super) fn write_last_floor(&mut self) {
        if !self.context.spool.is_kept() {
            return;
        }
        if let Err(error) = self.write_floor() {
            tracing::warn!(connector = self.context.connector.name, %error, "the spool is not left in order, the next start reads again");
        }
    }

    fn lows(&self) -> Vec<(i32, i64)> {
        self.core.state().lows.iter().map(|(&partition, low)| (partition, low.offset)).collect()
    }

    /// Copies low to Kafka, for lag tools. Nothing depends on it: a failure is said and tried again.
    pub(super) fn copy_lows(&mut self, now_ms: i64) {
        let age_ms = now_ms.saturating_sub(self.copied_lows_at_ms);
        let lows = self.lows();
        if self.copying_lows || age_ms < COPY_LOWS_MS.start || (lows == self.copied_lows && age_ms < COPY_LOWS_MS.end) {
            return;
        }
        let Some(group) = self.context.group.clone() else { return };
        let (kafka, topic) = (Arc::clone(&self.context.kafka), self.context.topic.clone());
        // Also a copy that fails is tried again only after a while.
        self.copied_lows_at_ms = now_ms;
        self.copying_lows = true;
        let answers = self.answers.0.clone();
        self.background.spawn(async move {
            let copied = kafka.commit(&group, &topic, &lows).await;
            if let Err(error) = &copied {
                tracing::warn!(group, topic, %error, "lows are not copied to the group's offsets");
            }
            let _ = answers.send(Answer::LowsCopied(copied.is_ok().then_some(lows)));
        });
    }

    pub(super) async fn copy_lows_at_the_end(&self) {
        let Some(group) = &self.context.group else { return };
        let lows = self.lows();
        if lows == self.copied_lows {
            return;
        }
        let copied =
            tokio::time::timeout(LAST_COPY, self.context.kafka.commit(group, &self.context.topic, &lows)).await;
        if let Ok(Err(error)) = copied {
            tracing::warn!(group, topic = self.context.topic, %error, "lows are not copied to the group's offsets");
        }
    }
}
