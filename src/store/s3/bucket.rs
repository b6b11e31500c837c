//! Asking a bucket what it does to objects by itself.
//!
//! Owns: the two requests and their answers. Does not own: what is harmful about it ([`crate::store::bucket`]).

use aws_sdk_s3::types::{BucketVersioningStatus, ExpirationStatus, LifecycleRule};

use super::Inner;
use super::errors::Answer;
use crate::config::Flavor;
use crate::store::bucket::{Bucket, Rule, Versioning, is_frozen};

impl Inner {
    pub(super) async fn bucket(&self) -> Bucket {
        let (versioning, rules) = futures::future::join(self.versioning(), self.rules()).await;
        Bucket {
            prefix: self.prefix.clone(),
            versioning,
            rules,
            create_only_needs_no_versions: self.dialect.flavor == Flavor::Oss,
            // After a day, by its own setting stale_uploads_expiry.
            removes_parts: self.dialect.flavor == Flavor::Minio,
        }
    }

    async fn versioning(&self) -> Result<Versioning, String> {
        let sent = self.client.get_bucket_versioning().bucket(&self.bucket).send().await;
        match sent.map_err(|error| Answer::of(&error).words())?.status {
            Some(BucketVersioningStatus::Enabled) => Ok(Versioning::Enabled),
            Some(BucketVersioningStatus::Suspended) => Ok(Versioning::Suspended),
            None => Ok(Versioning::Off),
            Some(other) => Err(format!("it is {:?}", other.as_str())),
        }
    }

    async fn rules(&self) -> Result<Vec<Rule>, String> {
        let sent = self.client.get_bucket_lifecycle_configuration().bucket(&self.bucket).send().await;
        match sent {
            Ok(output) => {
                let enabled = output.rules.unwrap_or_default().into_iter();
                Ok(enabled.filter(|rule| rule.status == ExpirationStatus::Enabled).map(rule).collect())
            }
            Err(error) => match Answer::of(&error) {
                answer if answer.is("NoSuchLifecycleConfiguration") || answer.is("NoSuchLifecycle") => Ok(Vec::new()),
                answer => Err(answer.words()),
            },
        }
    }
}

fn rule(found: LifecycleRule) -> Rule {
    let filter = found.filter;
    let and = filter.as_ref().and_then(|filter| filter.and.as_ref());
    let by_tags = filter.as_ref().is_some_and(|filter| filter.tag.is_some())
        || and.and_then(|and| and.tags.as_ref()).is_some_and(|tags| !tags.is_empty());
    #[expect(deprecated, reason = "older rules have it, and OSS's own")]
    let own = found.prefix;
    let prefix = and
        .and_then(|and| and.prefix.clone())
        .or_else(|| filter.as_ref().and_then(|filter| filter.prefix.clone()))
        .or(own)
        .unwrap_or_default();
    let classes = found.transitions.unwrap_or_default().into_iter().filter_map(|transition| transition.storage_class);
    let frozen = classes.map(|class| class.as_str().to_owned()).find(|class| is_frozen(class));
    Rule {
        id: found.id.unwrap_or_default(),
        prefix,
        by_tags,
        deletes: found.expiration.is_some_and(|expiration| expiration.days.is_some() || expiration.date.is_some()),
        freezes: frozen,
        removes_parts: found.abort_incomplete_multipart_upload.is_some(),
        removes_versions: found.noncurrent_version_expiration.is_some(),
    }
}
