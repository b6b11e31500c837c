//! The core's actions, carried out.
//!
//! Owns: what each action starts beside the loop, the journal's owner task. Does not own: when actions are taken, what becomes of
//! the answers.

use super::*;
use crate::ledger::Entry;
use crate::log::journal::Journal;
use crate::pipeline::compress::{Job, Work};
use crate::pipeline::upload::upload;
use crate::task::core::Action;

pub(super) enum JournalCommand {
    Append(Entry),
    CleanUp,
}

impl Driver<'_> {
    /// Carries out what the core decided.
    pub(super) async fn act(&mut self) -> Result<(), TaskError> {
        loop {
            let actions = self.core.take_actions();
            if actions.is_empty() {
                self.count_lanes();
                return Ok(());
            }
            for action in actions {
                self.perform(action).await?;
            }
        }
    }

    async fn perform(&mut self, action: Action) -> Result<(), TaskError> {
        match action {
            Action::Compress { file, sequence, buffer, note } => {
                let permit = self.context.budget.charge(buffer.memory_bytes() as u64);
                let level = self.connector.compression.level;
                self.submit(file, Work::Compress { sequence, buffer, level, note, permit }).await?;
            }
            Action::DeadLetter { id, letters } => {
                self.letters.push(id, letters, &self.context.budget);
                self.write_letters();
            }
            Action::Append(entry) => {
                self.write_spool_journal()?;
                self.tell_journal(JournalCommand::Append(entry)).await?;
            }
            Action::Accepted(differs) => {
                tracing::warn!(
                    connector = self.connector.name,
                    "an object is archived with what is left of it: {differs}"
                );
            }
            Action::CleanUp => self.tell_journal(JournalCommand::CleanUp).await?,
            Action::Finish { file, facts } => {
                // The last of its frames may have come after the log's entry.
                self.write_spool_journal()?;
                self.submit(file, Work::Finish { facts }).await?;
            }
            Action::Upload { file, key, intent, finished } => {
                let store = Arc::clone(&self.context.store);
                let environment = self.context.environment.clone();
                let permits = Arc::clone(&self.context.uploads);
                let answers = self.answers.0.clone();
                // Keeps the file on disk until the upload is over, however the task ends.
                let spool = self.spool_file(file);
                self.background.spawn(async move {
                    let permit = permits.acquire().await;
                    let uploaded = upload(store.as_ref(), &environment, &key, &intent.0, &finished).await;
                    drop(permit);
                    drop(spool);
                    let answer = match uploaded {
                        Ok(()) => Answer::Uploaded { file, key, bytes: finished.data.bytes },
                        Err(error) => Answer::Failed(error.into()),
                    };
                    let _ = answers.send(answer);
                });
            }
            Action::Read { partitions } => self.read(&partitions),
            Action::Discard { file } => {
                self.spool_files.remove(&file);
            }
        }
        Ok(())
    }

    pub(super) fn write_letters(&mut self) {
        let Some(topic) = self.connector.dead_letter.topic.clone() else { return };
        let Some(batch) = self.letters.next() else { return };
        let kafka = Arc::clone(&self.context.kafka);
        let random = Arc::clone(&self.context.environment.random);
        let answers = self.answers.0.clone();
        self.background.spawn(async move {
            let written = batch.write(kafka.as_ref(), random.as_ref(), &topic).await;
            let _ = answers.send(written.map_or_else(|error| Answer::Failed(error.into()), Answer::DeadLettered));
        });
    }

    async fn submit(&mut self, file: FileId, work: Work) -> Result<(), TaskError> {
        let codec = self.connector.compression.codec;
        let job = Job::new(file, codec, self.spool_file(file), work, self.worked.0.clone());
        if self.context.pool.submit(job).await {
            Ok(())
        } else {
            Err(TaskError::Panicked("the compression pool is gone".to_owned()))
        }
    }

    fn spool_file(&mut self, file: FileId) -> Arc<SpoolFile> {
        let spool = &self.spool;
        Arc::clone(self.spool_files.entry(file).or_insert_with(|| Arc::new(spool.file(file))))
    }

    async fn tell_journal(&self, command: JournalCommand) -> Result<(), TaskError> {
        let sent = self.journal.send(command).await;
        sent.map_err(|_| TaskError::Panicked("the journal's task is gone".to_owned()))
    }
}

/// Owns the journal: appends one entry after the other.
pub(super) async fn keep_journal(
    mut journal: Journal,
    mut commands: mpsc::Receiver<JournalCommand>,
    answers: mpsc::UnboundedSender<Answer>,
) {
    while let Some(command) = commands.recv().await {
        match command {
            JournalCommand::Append(entry) => {
                let appended = journal.append(entry).await;
                let failed = appended.is_err();
                if answers.send(Answer::Appended(appended)).is_err() || failed {
                    return;
                }
            }
            JournalCommand::CleanUp => {
                if let Err(error) = journal.clean_up().await {
                    tracing::warn!(%error, "old log entries are not deleted, the next clean-up tries again");
                }
            }
        }
    }
}
