//! Why a task stopped, by what somebody does about it.

use super::core::CoreError;
use crate::log::journal::LogError;
use crate::pipeline::compress::CompressError;
use crate::pipeline::produce::ProduceError;
use crate::pipeline::source::SourceError;
use crate::pipeline::spool::SpoolError;
use crate::pipeline::upload::UploadError;
use crate::store::{Fault, StoreError};

/// The reason that a task reports as its trace.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Core(#[from] CoreError),
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The topic of the dead letters.
    #[error("dead letters: {0}; set dead_letter.topic to one that takes them, or leave it out")]
    DeadLetters(#[from] ProduceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Upload(#[from] UploadError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Compress(CompressError),
    /// What the log says and what was asked for do not go together.
    #[error("{0}")]
    Conflict(String),
    /// Kafka lost records that were not archived, or serves other ones.
    #[error("{0}")]
    KafkaLost(String),
    #[error("a part of the task panicked: {0}; this is a bug")]
    Panicked(String),
}

/// What follows from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The worker starts the task again after a while: the network, a full disk.
    Restart,
    /// Another worker owns the task.
    Leave,
    /// The task stays failed until somebody acts: settings, permissions.
    Operator,
    /// Data was lost or an invariant is broken: the task stays failed.
    Damage,
}

impl Remedy {
    /// What to do, for the status and the log.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Restart => "the task is started again by itself; nothing is lost, records are read again from low",
            Self::Leave => "if two workers run by mistake, stop one of them",
            Self::Operator => {
                "correct the cause, then restart it over REST or with the worker (a changed connector file is enough); nothing is lost"
            }
            Self::Damage => {
                "nothing was overwritten; look into the cause before you restart it. Where records are gone from Kafka for good, `sluice offsets accept-loss` lets the task go on"
            }
        }
    }
}

impl TaskError {
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Log(LogError::Fenced { .. }) => Remedy::Leave,
            Self::Log(LogError::Store(_)) | Self::Store(_) => Remedy::Operator,
            Self::Log(LogError::Damaged { .. }) => Remedy::Damage,
            Self::Log(LogError::Newer { .. }) | Self::Conflict(_) => Remedy::Operator,
            Self::Source(SourceError::Unreachable { .. }) => Remedy::Restart,
            Self::Source(
                SourceError::NoTopic { .. } | SourceError::Refused { .. } | SourceError::Unreadable { .. },
            ) => Remedy::Operator,
            Self::Source(_) | Self::KafkaLost(_) => Remedy::Damage,
            Self::Core(CoreError::BadRecord { .. }) | Self::DeadLetters(_) => Remedy::Operator,
            Self::Core(_) => Remedy::Damage,
            Self::Upload(UploadError::Foreign { .. }) => Remedy::Damage,
            // The spool lost or changed a file.
            Self::Upload(UploadError::Store(StoreError { fault: Fault::Body, .. })) => Remedy::Restart,
            Self::Upload(UploadError::Store(_)) => Remedy::Operator,
            Self::Spool(_) | Self::Compress(CompressError::Spool(_)) => Remedy::Restart,
            Self::Compress(_) | Self::Panicked(_) => Remedy::Damage,
        }
    }

    /// What to do, for the status and the log.
    pub fn advice(&self) -> &'static str {
        self.remedy().advice()
    }
}

impl From<CompressError> for TaskError {
    fn from(error: CompressError) -> Self {
        match error {
            CompressError::Spool(error) => Self::Spool(error),
            error => Self::Compress(error),
        }
    }
}
