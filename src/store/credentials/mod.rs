//! Where the credentials of a store come from.
//!
//! Owns: the choice of a provider, static keys from files and the environment, the order of `auto`.
//! Does not own: AWS's own chain and profile files (aws-config's), Alibaba's services (`alibaba`), when credentials are renewed
//! (`refreshing`).
//!
//! Files are read for each request, so that a token which something else renews takes effect at once; everything else is kept
//! until it is due. Secrets are never part of a message.

mod alibaba;
mod ask;
mod refreshing;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::{StaticConfiguration, WebIdentityTokenCredentialsProvider};
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_s3::config::SharedHttpClient;
use tokio::io::AsyncReadExt;

use self::alibaba::{InstanceRole, OidcRole, OidcSettings};
pub(super) use self::refreshing::{Refreshing, Renewed, is_refusal};
use crate::clock::Environment;
use crate::config::{Credentials, CredentialsFrom, Flavor};
use crate::store::s3::query_encode as percent_encoded;

/// More than any key or token has.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// A provider; a renewed one is shared with the client's retries.
pub(super) enum Source {
    /// Asked for each request.
    Each(SharedCredentialsProvider),
    Renewed(Renewed),
}

/// What a provider may need of the store that it is for.
pub(super) struct Surroundings {
    pub(super) flavor: Flavor,
    pub(super) region: String,
    /// The store is reached from within Alibaba's network.
    pub(super) internal: bool,
    pub(super) http: SharedHttpClient,
    /// AWS's settings, read anew from files and environment.
    pub(super) aws: Fresh,
    pub(super) environment: Environment,
}

pub(super) type Fresh = Arc<dyn Fn() -> ProviderConfig + Send + Sync>;

/// Finds the provider. `Err` is a setting that can't work.
pub(super) fn source(
    credentials: &Credentials,
    around: &Surroundings,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Source, String> {
    match credentials.from {
        CredentialsFrom::Static => files(credentials).map(each),
        CredentialsFrom::File | CredentialsFrom::Auto if credentials.key_file.is_some() => files(credentials).map(each),
        CredentialsFrom::File => Ok(renewed(profile(credentials, around, &env), around)),
        CredentialsFrom::Env => from_env(around.flavor, &env).map(each),
        CredentialsFrom::AwsChain => Ok(renewed(chain(credentials, around), around)),
        CredentialsFrom::EcsRamRole => Ok(renewed(instance_role(credentials, around, &env), around)),
        CredentialsFrom::Oidc if around.flavor == Flavor::Oss => {
            oidc_of_alibaba(credentials, around, &env).map(|role| renewed(role, around))
        }
        CredentialsFrom::Oidc => oidc_of_aws(credentials, around, &env).map(|role| renewed(role, around)),
        CredentialsFrom::Auto => match from_env(around.flavor, &env) {
            Ok(found) => Ok(each(found)),
            Err(_) if around.flavor == Flavor::Oss => Ok(auto_of_alibaba(credentials, around, &env)?),
            Err(_) => Ok(renewed(chain(credentials, around), around)),
        },
    }
}

/// A pod's role where it has one, a profile, the instance's role: the first that is there.
fn auto_of_alibaba(
    credentials: &Credentials,
    around: &Surroundings,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<Source, String> {
    if env(alibaba::TOKEN_FILE).is_some_and(|file| !file.is_empty()) {
        return oidc_of_alibaba(credentials, around, env).map(|role| renewed(role, around));
    }
    let profile = SharedCredentialsProvider::new(profile(credentials, around, env));
    let mut all = vec![("the shared credentials file", profile)];
    if alibaba::metadata_allowed(env) {
        let role = SharedCredentialsProvider::new(instance_role(credentials, around, env));
        all.push(("the RAM role of this ECS instance", role));
    }
    Ok(renewed(FirstOf(all), around))
}

fn each(provider: impl ProvideCredentials + 'static) -> Source {
    Source::Each(SharedCredentialsProvider::new(provider))
}

fn renewed(provider: impl ProvideCredentials + 'static, around: &Surroundings) -> Source {
    Source::Renewed(Renewed(Refreshing::new(provider, around.environment.clone())))
}

fn chain(credentials: &Credentials, around: &Surroundings) -> Chain {
    Chain { aws: Arc::clone(&around.aws), profile: credentials.profile.clone() }
}

fn profile(credentials: &Credentials, around: &Surroundings, env: &impl Fn(&str) -> Option<String>) -> Profile {
    let name = credentials.profile.clone().or_else(|| env("AWS_PROFILE")).filter(|name| !name.is_empty());
    Profile { aws: Arc::clone(&around.aws), name: name.unwrap_or_else(|| "default".to_owned()) }
}

fn instance_role(
    credentials: &Credentials,
    around: &Surroundings,
    env: &impl Fn(&str) -> Option<String>,
) -> InstanceRole {
    InstanceRole::new(credentials.endpoint.as_deref(), around.http.clone(), env)
}

fn oidc_of_alibaba(
    credentials: &Credentials,
    around: &Surroundings,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<OidcRole, String> {
    let host = if around.internal { "sts-vpc" } else { "sts" };
    let settings = OidcSettings {
        role_arn: credentials.role_arn.as_ref(),
        token_file: credentials.token_file.as_ref(),
        endpoint: credentials
            .endpoint
            .clone()
            .unwrap_or_else(|| format!("https://{host}.{}.aliyuncs.com", around.region)),
    };
    OidcRole::new(&settings, around.http.clone(), around.environment.clone(), env)
}

fn oidc_of_aws(
    credentials: &Credentials,
    around: &Surroundings,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<WebIdentityTokenCredentialsProvider, String> {
    let of = |name: &str| env(name).filter(|value| !value.is_empty());
    let role_arn = credentials.role_arn.clone().or_else(|| of("AWS_ROLE_ARN"));
    let file = credentials.token_file.clone().or_else(|| of("AWS_WEB_IDENTITY_TOKEN_FILE").map(PathBuf::from));
    let (Some(role_arn), Some(web_identity_token_file)) = (role_arn, file) else {
        return Err("AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE are not both set in the environment, nor are \
                    sink.credentials.role_arn and token_file"
            .to_owned());
    };
    let session_name = of("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "sluice".to_owned());
    let settings = StaticConfiguration { web_identity_token_file, role_arn, session_name };
    Ok(WebIdentityTokenCredentialsProvider::builder().configure(&(around.aws)()).static_configuration(settings).build())
}

/// AWS's own chain, made anew each time: it reads its files once.
struct Chain {
    aws: Fresh,
    profile: Option<String>,
}

impl Chain {
    async fn ask(&self) -> Result<AwsCredentials, CredentialsError> {
        let mut builder = DefaultCredentialsChain::builder().configure((self.aws)());
        if let Some(profile) = &self.profile {
            builder = builder.profile_name(profile);
        }
        builder.build().await.provide_credentials().await
    }
}

/// A profile of the shared credentials file.
struct Profile {
    aws: Fresh,
    name: String,
}

impl Profile {
    async fn ask(&self) -> Result<AwsCredentials, CredentialsError> {
        let builder = ProfileFileCredentialsProvider::builder().configure(&(self.aws)()).profile_name(&self.name);
        builder.build().provide_credentials().await
    }
}

/// The first that is there; one that is there and fails is the answer.
struct FirstOf(Vec<(&'static str, SharedCredentialsProvider)>);

impl FirstOf {
    async fn ask(&self) -> Result<AwsCredentials, CredentialsError> {
        let mut missing = vec!["no keys in the environment".to_owned(), "no OIDC token".to_owned()];
        for (name, provider) in &self.0 {
            match provider.provide_credentials().await {
                Err(error @ CredentialsError::CredentialsNotLoaded(_)) => {
                    missing.push(format!("{name}: {}", super::s3::causes(&error)));
                }
                Err(error) => {
                    return Err(CredentialsError::provider_error(format!("{name}: {}", super::s3::causes(&error))));
                }
                found => return found,
            }
        }
        Err(CredentialsError::not_loaded(missing.join("; ")))
    }
}

/// Each is asked by its own method, and says no more of itself than its name.
macro_rules! provides {
    ($($kind:ident),*) => {$(
        impl std::fmt::Debug for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($kind))
            }
        }

        impl ProvideCredentials for $kind {
            fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
            where
                Self: 'a,
            {
                future::ProvideCredentials::new(self.ask())
            }
        }
    )*};
}

provides!(Chain, Profile, FirstOf, FileCredentials, InstanceRole, OidcRole);

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
struct FileCredentials {
    key: PathBuf,
    secret: PathBuf,
    token: Option<PathBuf>,
}

impl FileCredentials {
    async fn ask(&self) -> Result<AwsCredentials, CredentialsError> {
        let token = match &self.token {
            Some(path) => Some(read_secret(path).await?),
            None => None,
        };
        let (key, secret) = (read_secret(&self.key).await?, read_secret(&self.secret).await?);
        Ok(AwsCredentials::new(key, secret, token, None, "files"))
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
mod tests;
