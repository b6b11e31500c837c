use super::*;
use crate::config::Credentials;

fn settings(from: CredentialsFrom) -> Credentials {
    Credentials {
        from,
        role_arn: None,
        profile: None,
        key_file: None,
        secret_file: None,
        token_file: None,
        endpoint: None,
    }
}

fn http() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_http()
}

fn around(flavor: Flavor) -> Surroundings {
    Surroundings {
        flavor,
        region: "cn-test".to_owned(),
        internal: false,
        http: http(),
        aws: Arc::new(|| ProviderConfig::empty().with_http_client(http())),
        environment: Environment::system(),
    }
}

/// `Ok`: key and token.
async fn found(
    credentials: &Credentials,
    flavor: Flavor,
    vars: &[(&str, &str)],
) -> Result<(String, Option<String>), String> {
    let env = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
    let found = match source(credentials, &around(flavor), env)? {
        Source::Each(provider) => provider.provide_credentials().await,
        Source::Renewed(renewed) => renewed.provide_credentials().await,
    };
    let found = found.map_err(|error| format!("{error:?}"))?;
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

fn in_files(from: CredentialsFrom, dir: &Path) -> Credentials {
    let path = |name: &str, text: &str| {
        std::fs::write(dir.join(name), text).unwrap();
        Some(dir.join(name))
    };
    Credentials {
        key_file: path("key", "one\n"),
        secret_file: path("secret", "very secret\n"),
        token_file: path("token", "t1\n"),
        ..settings(from)
    }
}

#[tokio::test]
async fn files_are_read_anew_each_time() {
    let dir = tempfile::tempdir().unwrap();
    for from in [CredentialsFrom::Auto, CredentialsFrom::File, CredentialsFrom::Static] {
        let credentials = in_files(from, dir.path());
        let Ok(Source::Each(provider)) = source(&credentials, &around(Flavor::Aws), |_| None) else {
            panic!("{from:?} does not read files")
        };
        let first = provider.provide_credentials().await.unwrap();
        assert_eq!((first.access_key_id(), first.session_token()), ("one", Some("t1")));
        std::fs::write(dir.path().join("token"), "t2\n").unwrap();
        assert_eq!(provider.provide_credentials().await.unwrap().session_token(), Some("t2"));
        std::fs::write(dir.path().join("secret"), " \n").unwrap();
        let error = format!("{:?}", provider.provide_credentials().await.unwrap_err());
        assert!(error.contains("is empty") && !error.contains("very secret"), "{error}");
        assert!(!format!("{provider:?}").contains("secret"), "{provider:?}");
    }
}

#[tokio::test]
async fn what_can_not_work_is_said_at_once() {
    for (from, flavor, missing) in [
        (CredentialsFrom::Static, Flavor::Oss, "key_file"),
        (CredentialsFrom::Oidc, Flavor::Oss, "ALIBABA_CLOUD_ROLE_ARN"),
        (CredentialsFrom::Oidc, Flavor::Aws, "AWS_ROLE_ARN"),
    ] {
        let error = found(&settings(from), flavor, &[]).await.unwrap_err();
        assert!(error.contains(missing), "{error}");
    }
    let role = [("ALIBABA_CLOUD_ROLE_ARN", "r"), ("ALIBABA_CLOUD_OIDC_TOKEN_FILE", "/t")];
    for from in [CredentialsFrom::Oidc, CredentialsFrom::Auto] {
        let error = found(&settings(from), Flavor::Oss, &role).await.unwrap_err();
        assert!(error.contains("ALIBABA_CLOUD_OIDC_PROVIDER_ARN"), "{error}");
    }
}

#[tokio::test]
async fn auto_says_what_it_looked_for() {
    let off = [("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "true")];
    let error = found(&settings(CredentialsFrom::Auto), Flavor::Oss, &off).await.unwrap_err();
    for place in ["environment", "OIDC token", "shared credentials file"] {
        assert!(error.contains(place), "{error}");
    }
}
