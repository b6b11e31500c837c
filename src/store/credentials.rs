//! Where the credentials of a store come from.
//!
//! Owns: the choice of a provider, static keys from files and the environment.
//! Does not own: AWS's own chain and profile files (aws-config's).
//!
//! Files are read for each request, so that a token which something else renews takes effect at once. Secrets are never
//! part of a message.

use std::path::{Path, PathBuf};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_s3::config::{IdentityCache, SharedIdentityCache};
use tokio::io::AsyncReadExt;

use crate::config::{Credentials, CredentialsFrom, Flavor};

/// More than any key or token has.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// A provider and whether its answers are kept until they expire.
pub(super) struct Source {
    pub(super) provider: SharedCredentialsProvider,
    pub(super) cache: SharedIdentityCache,
}

/// Finds the provider. `Err` is a setting that can't work.
pub(super) async fn source(
    credentials: &Credentials,
    flavor: Flavor,
    aws: &ProviderConfig,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Source, String> {
    match credentials.from {
        CredentialsFrom::Static => files(credentials).map(fixed),
        CredentialsFrom::Env => from_env(flavor, &env).map(fixed),
        CredentialsFrom::File => {
            let mut builder = ProfileFileCredentialsProvider::builder().configure(aws);
            if let Some(profile) = &credentials.profile {
                builder = builder.profile_name(profile);
            }
            Ok(cached(builder.build()))
        }
        CredentialsFrom::AwsChain => Ok(cached(chain(credentials, aws).await)),
        CredentialsFrom::Auto if credentials.key_file.is_some() => files(credentials).map(fixed),
        CredentialsFrom::Auto => match from_env(flavor, &env) {
            Ok(found) => Ok(fixed(found)),
            Err(_) => Ok(cached(chain(credentials, aws).await)),
        },
        CredentialsFrom::EcsRamRole | CredentialsFrom::Oidc => {
            Err("sink.credentials.from `ecs-ram-role` and `oidc` are not supported by this version".to_owned())
        }
    }
}

async fn chain(credentials: &Credentials, aws: &ProviderConfig) -> DefaultCredentialsChain {
    let mut builder = DefaultCredentialsChain::builder().configure(aws.clone());
    if let Some(profile) = &credentials.profile {
        builder = builder.profile_name(profile);
    }
    builder.build().await
}

fn fixed(provider: impl ProvideCredentials + 'static) -> Source {
    Source { provider: SharedCredentialsProvider::new(provider), cache: IdentityCache::no_cache() }
}

fn cached(provider: impl ProvideCredentials + 'static) -> Source {
    Source { provider: SharedCredentialsProvider::new(provider), cache: IdentityCache::lazy().build() }
}

type AwsCredentials = aws_credential_types::Credentials;

fn from_env(flavor: Flavor, env: impl Fn(&str) -> Option<String>) -> Result<AwsCredentials, String> {
    let aws = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
    let oss = ["ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN"];
    let sets: &[[&str; 3]] = if flavor == Flavor::Oss { &[oss, aws] } else { &[aws] };
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    for [key, secret, token] in sets {
        match (set(key), set(secret)) {
            (Some(key), Some(secret)) => {
                return Ok(AwsCredentials::new(key, secret, set(token), None, "environment"));
            }
            (None, None) => {}
            (Some(_), None) => return Err(format!("{key} is set, {secret} is not")),
            (None, Some(_)) => return Err(format!("{secret} is set, {key} is not")),
        }
    }
    let names: Vec<String> = sets.iter().map(|[key, secret, _]| format!("{key} and {secret}")).collect();
    Err(format!("the environment holds no credentials: set {}", names.join(", or ")))
}

fn files(credentials: &Credentials) -> Result<FileCredentials, String> {
    match (&credentials.key_file, &credentials.secret_file) {
        (Some(key), Some(secret)) => {
            Ok(FileCredentials { key: key.clone(), secret: secret.clone(), token: credentials.token_file.clone() })
        }
        _ => Err("static credentials need sink.credentials.key_file and secret_file".to_owned()),
    }
}

/// Key, secret and token in a file each.
#[derive(Debug)]
struct FileCredentials {
    key: PathBuf,
    secret: PathBuf,
    token: Option<PathBuf>,
}

impl FileCredentials {
    async fn read(&self) -> Result<AwsCredentials, CredentialsError> {
        let token = match &self.token {
            Some(path) => Some(read_secret(path).await?),
            None => None,
        };
        let (key, secret) = (read_secret(&self.key).await?, read_secret(&self.secret).await?);
        Ok(AwsCredentials::new(key, secret, token, None, "files"))
    }
}

impl ProvideCredentials for FileCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.read())
    }
}

async fn read_secret(path: &Path) -> Result<String, CredentialsError> {
    let failed = |why: String| CredentialsError::provider_error(format!("{}: {why}", path.display()));
    let file = tokio::fs::File::open(path).await.map_err(|e| failed(e.to_string()))?;
    let mut text = String::new();
    file.take(MAX_SECRET_BYTES).read_to_string(&mut text).await.map_err(|e| failed(e.to_string()))?;
    match text.trim() {
        "" => Err(failed("is empty".to_owned())),
        text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(from: CredentialsFrom) -> Credentials {
        Credentials { from, role_arn: None, profile: None, key_file: None, secret_file: None, token_file: None }
    }

    async fn found(
        credentials: &Credentials,
        flavor: Flavor,
        vars: &[(&str, &str)],
    ) -> Result<(String, Option<String>), String> {
        let env = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let source = source(credentials, flavor, &ProviderConfig::empty(), env).await?;
        let found = source.provider.provide_credentials().await.map_err(|e| format!("{e:?}"))?;
        Ok((found.access_key_id().to_owned(), found.session_token().map(ToOwned::to_owned)))
    }

    #[tokio::test]
    async fn the_environment_is_read_in_the_flavors_names() {
        let both = [
            ("AWS_ACCESS_KEY_ID", "aws"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ali"),
            ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "s"),
            ("ALIBABA_CLOUD_SECURITY_TOKEN", "t"),
        ];
        let env = settings(CredentialsFrom::Env);
        assert_eq!(found(&env, Flavor::Oss, &both).await, Ok(("ali".to_owned(), Some("t".to_owned()))));
        assert_eq!(found(&env, Flavor::Oss, &both[..2]).await, Ok(("aws".to_owned(), None)));
        assert_eq!(found(&env, Flavor::Aws, &both).await, Ok(("aws".to_owned(), None)));
        assert_eq!(found(&settings(CredentialsFrom::Auto), Flavor::Minio, &both).await, Ok(("aws".to_owned(), None)));
        assert!(found(&env, Flavor::Aws, &both[2..]).await.unwrap_err().contains("AWS_ACCESS_KEY_ID"));
        assert!(found(&env, Flavor::Aws, &both[..1]).await.unwrap_err().contains("AWS_SECRET_ACCESS_KEY is not"));
    }

    #[tokio::test]
    async fn files_are_read_anew_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            Some(dir.path().join(name))
        };
        let mut credentials = settings(CredentialsFrom::Auto);
        credentials.key_file = path("key", "one\n");
        credentials.secret_file = path("secret", "very secret\n");
        credentials.token_file = path("token", "t1\n");
        let source = source(&credentials, Flavor::Aws, &ProviderConfig::empty(), |_| None).await.unwrap();
        let first = source.provider.provide_credentials().await.unwrap();
        assert_eq!((first.access_key_id(), first.session_token()), ("one", Some("t1")));
        path("token", "t2\n");
        assert_eq!(source.provider.provide_credentials().await.unwrap().session_token(), Some("t2"));
        path("secret", " \n");
        let error = format!("{:?}", source.provider.provide_credentials().await.unwrap_err());
        assert!(error.contains("is empty") && !error.contains("very secret"), "{error}");
    }

    #[tokio::test]
    async fn what_can_not_work_is_said_at_once() {
        for from in [CredentialsFrom::EcsRamRole, CredentialsFrom::Oidc, CredentialsFrom::Static] {
            assert!(found(&settings(from), Flavor::Oss, &[]).await.is_err());
        }
    }
}
