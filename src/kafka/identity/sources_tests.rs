use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::*;

/// A server that answers by the beginning of the request, and what it was asked.
fn server(answers: &'static [(&'static str, &'static str)]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let serve = move || {
        while let Ok((stream, _)) = listener.accept() {
            let mut reader = BufReader::new(&stream);
            let (mut request, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                request += &line;
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            request += &String::from_utf8(body).unwrap();
            let found = answers.iter().find(|(begin, _)| request.starts_with(begin));
            let (status, body) = match found {
                Some((_, body)) if !body.starts_with("refused") => ("200 OK", *body),
                Some((_, body)) => ("403 Forbidden", *body),
                None => ("404 Not Found", ""),
            };
            heard.lock().unwrap().push(request);
            let size = body.len();
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n");
            (&stream).write_all((head + body).as_bytes()).unwrap();
        }
    };
    std::thread::Builder::new().name("server".to_owned()).spawn(serve).unwrap();
    (place, asked)
}

fn find(env: &[(&str, &str)]) -> Result<Credentials, Failure> {
    let env: BTreeMap<&str, &str> = env.iter().copied().collect();
    let env = move |name: &str| env.get(name).map(|value| (*value).to_owned());
    Sources::new("eu-west-1", &env).find()
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const OFF: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");
const GIVEN: &str = r#"{"Code":"Success","AccessKeyId":"AK","SecretAccessKey":"hunter2","Token":"T","Expiration":"2026-11-26T13:00:00Z"}"#;
/// 2026-11-26T13:00:00Z.
const THEN: i64 = 1_795_698_000_000;

#[test]
fn the_environment_goes_first_and_is_whole_or_refused() {
    let both = [
        ("AWS_ACCESS_KEY_ID", "AK"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("AWS_SESSION_TOKEN", "T"),
    ];
    let found = find(&both).unwrap();
    assert_eq!(
        (found.access.as_str(), found.session.as_deref(), found.expires),
        ("AK", Some("T"), None)
    );
    let half = find(&both[..1]).err().unwrap();
    assert!(half.message.contains("set both") && half.exit == Exit::Config);
    let none = find(&[OFF]).err().unwrap();
    assert!(none.message.contains("eks.amazonaws.com/role-arn") && none.exit == Exit::Config);
}

#[test]
fn a_pod_assumes_its_role_by_the_file_that_kubernetes_renews() {
    let folder = tempfile::tempdir().unwrap();
    let token = file(folder.path(), "token", "eyJ.a+b/c=\n");
    let (place, asked) = server(&[(
        "POST / ",
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>AK</AccessKeyId>\
         <SecretAccessKey>hunter2</SecretAccessKey><SessionToken>T</SessionToken>\
         <Expiration>2026-11-26T13:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
         </AssumeRoleWithWebIdentityResponse>",
    )]);
    let env = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        ("AWS_ENDPOINT_URL_STS", place.as_str()),
    ];
    let found = find(&env).unwrap();
    assert_eq!((found.access.as_str(), found.secret.as_str()), ("AK", "hunter2"));
    assert_eq!((found.session.as_deref(), found.expires), (Some("T"), Some(THEN)));
    let request = asked.lock().unwrap()[0].clone();
    let body = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr\
                &RoleSessionName=tidemill&WebIdentityToken=eyJ.a%2Bb%2Fc%3D";
    assert!(request.ends_with(body), "{request}");
    assert!(find(&env[..1]).err().unwrap().message.contains("AWS_ROLE_ARN is not"));
}

#[test]
fn who_refuses_says_why_and_who_is_away_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let token = file(folder.path(), "token", "eyJ");
    let (place, _) = server(&[("POST / ", "refused: <Message>Not authorized</Message>")]);
    let with = |place: &str| {
        find(&[
            ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
            ("AWS_ROLE_ARN", "arn"),
            ("AWS_ENDPOINT_URL_STS", place),
        ])
        .err()
        .unwrap()
    };
    let refused = with(&place);
    assert!(refused.message.contains("Not authorized") && refused.exit == Exit::Config);
    assert!(!refused.message.contains("eyJ"));
    assert_eq!(with("http://127.0.0.1:1").exit, Exit::Temporary);
}

#[test]
fn a_container_and_a_machine_are_asked_as_amazon_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let secret = file(folder.path(), "authorization", "Bearer x\n");
    let (place, asked) = server(&[
        ("GET /v1/credentials ", GIVEN),
        ("PUT /latest/api/token ", "session"),
        ("GET /latest/meta-data/iam/security-credentials/ ", "role-1\n"),
        ("GET /latest/meta-data/iam/security-credentials/role-1 ", GIVEN),
    ]);
    let full = format!("{place}/v1/credentials");
    let container = find(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &full),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &secret),
        OFF,
    ])
    .unwrap();
    assert_eq!((container.access.as_str(), container.expires), ("AK", Some(THEN)));
    assert!(asked.lock().unwrap()[0].to_ascii_lowercase().contains("authorization: bearer x"));
    let machine = find(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &place)]).unwrap();
    assert_eq!((machine.access.as_str(), machine.session.as_deref()), ("AK", Some("T")));
    assert!(machine.origin.contains("role-1"));
    assert!(
        asked.lock().unwrap()[3].to_ascii_lowercase().contains("x-aws-ec2-metadata-token: session")
    );
    // A token of a container goes to nobody else in the clear.
    let strange = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/v1"), OFF];
    assert!(find(&strange).err().unwrap().message.contains("write https://"));
}

#[test]
fn a_shared_file_has_profiles() {
    let folder = tempfile::tempdir().unwrap();
    let text = "# mine\n[default]\naws_access_key_id = A\naws_secret_access_key=B\n\n[ops]\naws_access_key_id=C\n\
                aws_secret_access_key=D\naws_session_token = E\n[bare]\nregion=eu\n";
    let path = file(folder.path(), "credentials", text);
    for (profile, stands) in [
        (None, Some(("A", None))),
        (Some("ops"), Some(("C", Some("E")))),
        (Some("bare"), None),
        (Some("none"), None),
    ] {
        let mut env = vec![("AWS_SHARED_CREDENTIALS_FILE", path.as_str()), OFF];
        env.extend(profile.map(|profile| ("AWS_PROFILE", profile)));
        let found = find(&env).ok();
        let found = found.as_ref().map(|found| (found.access.as_str(), found.session.as_deref()));
        assert_eq!(found, stands, "{profile:?}");
    }
    let away = [("AWS_SHARED_CREDENTIALS_FILE", "/nowhere"), OFF];
    assert!(find(&away).err().unwrap().message.contains("/nowhere"));
}
