use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;

/// Serves each answer on one connection of its own, then stops. Returns the requests' first lines.
fn serve(home: &Home, answers: Vec<String>) -> tokio::task::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(home.socket()).unwrap();
    tokio::spawn(async move {
        let mut seen = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !complete(&request) {
                let read = stream.read(&mut buffer).await.unwrap();
                assert_ne!(read, 0, "the request was cut off");
                request.extend_from_slice(&buffer[..read]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            seen.push(String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned());
        }
        seen
    })
}

/// Whether head and body of a request have arrived.
fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(|value| value.trim().to_owned()))
        .map_or(0, |value| value.parse::<usize>().unwrap());
    body.len() >= length
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path());
    (dir, home)
}

#[tokio::test]
async fn a_missing_or_dead_socket_means_not_running() {
    let (_dir, home) = home();
    let client = Client::new(home.clone()).unwrap();
    assert!(matches!(client.status().await, Err(Error::NotRunning { set_up: false, .. })));
    // A socket file whose server is gone, as a killed agent leaves it.
    drop(UnixListener::bind(home.socket()).unwrap());
    std::fs::write(home.config(), "{}").unwrap();
    assert!(matches!(client.status().await, Err(Error::NotRunning { set_up: true, .. })));
}

#[tokio::test]
async fn failures_of_the_agent_arrive_typed() {
    let (_dir, home) = home();
    let body = r#"{"code":"unavailable","message":"3 peers, 5 needed","hint":"hn peers"}"#;
    let server = serve(&home, vec![answer("503 Service Unavailable", body), answer("404 Not Found", "?")]);
    let client = Client::new(home).unwrap();
    let error = client.umount(None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(matches!(error, Error::Api(error) if error.hint.as_deref() == Some("hn peers")));
    assert!(matches!(client.down().await, Err(Error::Protocol { .. })));
    assert_eq!(server.await.unwrap(), ["POST /v1/umount HTTP/1.1", "POST /v1/down HTTP/1.1"]);
}

#[tokio::test]
async fn events_come_in_order_whatever_the_chunks() {
    let (_dir, home) = home();
    let parts = [
        "{\"event\":\"pro",
        "gress\",\"phase\":\"a\"}\n\n{\"event\":\"progress\",\"phase\":\"b\"}\n",
        "{\"event\":\"done\",\"files\":3,\"bytes\":4}",
    ];
    let mut text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n".to_owned();
    for part in parts {
        text.push_str(&format!("{:x}\r\n{part}\r\n", part.len()));
    }
    text.push_str("0\r\n\r\n");
    let server = serve(&home, vec![text]);
    let client = Client::new(home).unwrap();
    let mut events = client.sync(None).await.unwrap();
    let mut seen = Vec::new();
    while let Some(event) = events.next().await.unwrap() {
        seen.push(event);
    }
    assert!(matches!(&seen[0], api::SyncEvent::Progress(progress) if progress.phase == "a"));
    assert!(matches!(&seen[1], api::SyncEvent::Progress(progress) if progress.phase == "b"));
    assert!(matches!(&seen[2], api::SyncEvent::Done(report) if report.files == 3));
    assert_eq!(seen.len(), 3);
    server.await.unwrap();
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_an_error() {
    let (_dir, home) = home();
    let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n5\r\n{\"eve".to_owned();
    let server = serve(&home, vec![text]);
    let client = Client::new(home).unwrap();
    let mut events = client.sync(None).await.unwrap();
    assert!(matches!(events.next().await, Err(Error::Interrupted { .. })));
    server.await.unwrap();
}

#[test]
fn lines_are_bounded() {
    let mut lines = Lines::default();
    assert!(lines.push(&vec![b'a'; LINE_MAX]));
    assert!(!lines.push(b"a"));
}

#[test]
fn a_home_too_deep_for_a_socket_is_refused_in_words() {
    let home = Home::new(format!("/{}", "d".repeat(120)));
    assert!(matches!(Client::new(home), Err(Error::SocketPathTooLong { .. })));
}

#[tokio::test]
async fn a_request_that_cannot_be_made_does_not_blame_the_agent() {
    struct Unspeakable;
    impl Serialize for Unspeakable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no words for it"))
        }
    }
    let (_dir, home) = home();
    let _listener = UnixListener::bind(home.socket()).unwrap();
    let client = Client::new(home).unwrap();
    let error = client.stream::<api::SyncEvent>(path::SYNC, &Unspeakable).await.unwrap_err();
    assert!(matches!(&error, Error::Request { request: path::SYNC, .. }), "{error:?}");
    assert!(error.to_string().contains("no words for it"), "{error}");
}
