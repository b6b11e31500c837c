//! Credentials that Alibaba Cloud gives to machines and pods.
//!
//! Owns: the RAM role of an ECS instance (from its metadata service), a role taken on with an OIDC token (RRSA), what the answers
//! of both mean. Does not own: keeping what was given ([`super::refreshing`]).

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::SharedHttpClient;
use jiff::Timestamp;
use serde::Deserialize;

use super::ask::{Question, Reply, Service};
use super::{percent_encoded, read_secret};
use crate::clock::Environment;

/// The same for every instance.
const METADATA: &str = "http://100.100.100.200";
/// The service is on the same host.
const METADATA_LIMIT: Duration = Duration::from_secs(2);
const ROLES: &str = "/latest/meta-data/ram/security-credentials/";
/// A token serves the two questions after it.
const TOKEN_TTL_SECS: u32 = 60;

const STS_LIMIT: Duration = Duration::from_secs(8);
const SESSION_SECS: u32 = 3600;

/// The names that RRSA, and Alibaba's own SDKs, use.
const ROLE_ARN: &str = "ALIBABA_CLOUD_ROLE_ARN";
const PROVIDER_ARN: &str = "ALIBABA_CLOUD_OIDC_PROVIDER_ARN";
pub(super) const TOKEN_FILE: &str = "ALIBABA_CLOUD_OIDC_TOKEN_FILE";
const SESSION_NAME: &str = "ALIBABA_CLOUD_ROLE_SESSION_NAME";
const ROLE_NAME: &str = "ALIBABA_CLOUD_ECS_METADATA";
const NO_METADATA: &str = "ALIBABA_CLOUD_ECS_METADATA_DISABLED";
const ONLY_HARDENED: &str = "ALIBABA_CLOUD_IMDSV1_DISABLED";

type Found = Result<Credentials, CredentialsError>;

/// Fields of both services' answers.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Given {
    access_key_id: String,
    access_key_secret: String,
    security_token: String,
    expiration: String,
    /// Of the metadata service.
    code: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Session {
    credentials: Given,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Refusal {
    code: String,
    message: String,
    request_id: String,
}

impl Given {
    fn credentials(self, provider: &'static str) -> Result<Credentials, &'static str> {
        if self.access_key_id.is_empty() || self.access_key_secret.is_empty() || self.security_token.is_empty() {
            return Err("the answer lacks a key, a secret or a token");
        }
        let end: Timestamp = self.expiration.parse().map_err(|_| "the answer does not say when the credentials end")?;
        let end = UNIX_EPOCH + Duration::from_millis(u64::try_from(end.as_millisecond()).unwrap_or(0));
        Ok(Credentials::new(self.access_key_id, self.access_key_secret, Some(self.security_token), Some(end), provider))
    }
}

fn is_true(env: &impl Fn(&str) -> Option<String>, name: &str) -> bool {
    env(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Whether the instance's metadata service may be asked without being named.
pub(super) fn metadata_allowed(env: &impl Fn(&str) -> Option<String>) -> bool {
    !is_true(env, NO_METADATA)
}

/// The role that is attached to this ECS instance.
pub(super) struct InstanceRole {
    metadata: Service,
    /// `None`: the instance's own.
    role: Option<String>,
    only_hardened: bool,
}

impl InstanceRole {
    pub(super) fn new(endpoint: Option<&str>, http: SharedHttpClient, env: &impl Fn(&str) -> Option<String>) -> Self {
        Self {
            metadata: Service::new("ECS metadata service", endpoint.unwrap_or(METADATA), http, METADATA_LIMIT),
            role: env(ROLE_NAME).filter(|name| !name.is_empty()),
            only_hardened: is_true(env, ONLY_HARDENED),
        }
    }

    /// The header of hardened mode; none where the service is in normal mode only, or its answer does not reach a container.
    async fn token(&self) -> Result<Vec<(&'static str, String)>, CredentialsError> {
        let ask = Question {
            method: "PUT",
            target: "/latest/api/token".to_owned(),
            headers: vec![("X-aliyun-ecs-metadata-token-ttl-seconds", TOKEN_TTL_SECS.to_string())],
            body: String::new(),
        };
        let why = match self.metadata.ask_once(ask).await {
            Ok(Reply { status: 200, body }) => match std::str::from_utf8(&body).map(str::trim) {
                Ok(token) if !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) => {
                    return Ok(vec![("X-aliyun-ecs-metadata-token", token.to_owned())]);
                }
                _ => self.metadata.unusable(200, "it gives no token"),
            },
            Ok(reply) => self.metadata.unusable(reply.status, "it gives no token"),
            Err(why) => why,
        };
        if self.only_hardened { Err(CredentialsError::provider_error(why)) } else { Ok(Vec::new()) }
    }

    async fn get(&self, target: String, headers: &[(&'static str, String)]) -> Result<Reply, CredentialsError> {
        let question = Question { headers: headers.to_vec(), ..Question::get(target) };
        let reply = self.metadata.ask(&question).await.map_err(CredentialsError::provider_error)?;
        match reply.status {
            200 => Ok(reply),
            404 => Err(CredentialsError::not_loaded(
                self.metadata.unusable(404, "no such RAM role is attached to this instance"),
            )),
            status => Err(CredentialsError::provider_error(self.metadata.unusable(status, "it refuses"))),
        }
    }

    pub(super) async fn ask(&self) -> Found {
        let headers = self.token().await?;
        let role = match &self.role {
            Some(role) => role.clone(),
            None => {
                let reply = self.get(ROLES.to_owned(), &headers).await?;
                let name = reply.text().and_then(|text| text.lines().next()).map(str::trim).unwrap_or_default();
                if name.is_empty() {
                    let why = self.metadata.unusable(200, "no RAM role is attached to this instance");
                    return Err(CredentialsError::not_loaded(why));
                }
                name.to_owned()
            }
        };
        let reply = self.get(format!("{ROLES}{}", percent_encoded(&role)), &headers).await?;
        let unusable = |why: &str| CredentialsError::provider_error(self.metadata.unusable(reply.status, why));
        let given: Given = serde_json::from_slice(&reply.body).map_err(|_| unusable("it is not the JSON of a role"))?;
        if given.code.as_deref().is_some_and(|code| code != "Success") {
            return Err(unusable("it has no credentials for the role at present"));
        }
        given.credentials("ecs-ram-role").map_err(unusable)
    }
}

/// A role taken on with a token of an OIDC provider, as in a pod with RRSA.
pub(super) struct OidcRole {
    sts: Service,
    role_arn: String,
    provider_arn: String,
    token_file: PathBuf,
    session: String,
    environment: Environment,
}

/// What of [`OidcRole`] is settings; the rest comes from the environment.
pub(super) struct OidcSettings<'a> {
    pub(super) role_arn: Option<&'a String>,
    pub(super) token_file: Option<&'a PathBuf>,
    pub(super) endpoint: String,
}

impl OidcRole {
    /// `Err` names what is missing.
    pub(super) fn new(
        settings: &OidcSettings<'_>,
        http: SharedHttpClient,
        environment: Environment,
        env: &impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let of = |name: &str| env(name).filter(|value| !value.is_empty());
        let need = |found: Option<String>, name: &str, key: &str| {
            found.or_else(|| of(name)).ok_or_else(|| format!("{name} is not set in the environment{key}"))
        };
        let token_file = settings.token_file.map(|path| path.display().to_string());
        Ok(Self {
            role_arn: need(settings.role_arn.cloned(), ROLE_ARN, ", nor is sink.credentials.role_arn")?,
            provider_arn: need(None, PROVIDER_ARN, "")?,
            token_file: need(token_file, TOKEN_FILE, ", nor is sink.credentials.token_file")?.into(),
            session: of(SESSION_NAME).unwrap_or_else(|| "sluice".to_owned()),
            sts: Service::new("STS", &settings.endpoint, http, STS_LIMIT),
            environment,
        })
    }

    pub(super) async fn ask(&self) -> Found {
        // The platform replaces it from time to time.
        let token = read_secret(&self.token_file).await?;
        let now = Timestamp::from_millisecond(self.environment.clock.now_ms()).unwrap_or_default();
        let form = form(&[
            ("RoleArn", &self.role_arn),
            ("OIDCProviderArn", &self.provider_arn),
            ("OIDCToken", &token),
            ("RoleSessionName", &self.session),
            ("DurationSeconds", &SESSION_SECS.to_string()),
        ]);
        let time = percent_encoded(&now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let question = Question {
            method: "POST",
            target: format!("/?Action=AssumeRoleWithOIDC&Format=JSON&Version=2015-04-01&Timestamp={time}"),
            headers: vec![
                ("content-type", "application/x-www-form-urlencoded".to_owned()),
                ("accept", "application/json".to_owned()),
            ],
            body: form,
        };
        let reply = self.sts.ask(&question).await.map_err(CredentialsError::provider_error)?;
        let unusable = |why: &str| CredentialsError::provider_error(self.sts.unusable(reply.status, why));
        if reply.status != 200 {
            let refusal: Refusal = serde_json::from_slice(&reply.body).unwrap_or_default();
            return Err(unusable(&refusal.words(&token)));
        }
        let session: Session =
            serde_json::from_slice(&reply.body).map_err(|_| unusable("it is not the JSON of a session"))?;
        session.credentials.credentials("oidc").map_err(unusable)
    }
}

impl Refusal {
    /// `AuthenticationFail.OIDCToken.Expired: This JSON Web Token has expired (request id ..)`. A service that repeats the token
    /// in its words does not bring it into ours.
    fn words(&self, token: &str) -> String {
        if self.code.is_empty() {
            return "it refuses".to_owned();
        }
        let said = format!("{}: {} (request id {})", self.code, self.message, self.request_id);
        said.replace(token, "***").chars().take(400).map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

fn form(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
    pairs.join("&")
}
