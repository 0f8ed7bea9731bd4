//! Connections of strangers: few, small, and none for ever.
//!
//! Whoever reaches the port can open connections and say nothing, say it slowly, or not take the answer. So there are
//! bounds: the header of a request is there within five seconds and fits in 16 KiB, and so is the next one's on a
//! connection that is kept; a connection lives for a minute; and there are 64. One more takes the place of the oldest
//! that has not asked anything yet, where all have, of the oldest: a probe that asks at once is answered whoever else
//! is there.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Most connections at one time.
const MOST: usize = 64;

/// How long a request's header may take, and how long a connection is kept without one.
const HEADER: Duration = Duration::from_secs(5);

/// Longest header, in bytes.
const LONGEST_HEADER: usize = 16 << 10;

/// How long a connection lives: an answer that nobody takes is given up then.
const LIFE: Duration = Duration::from_secs(60);

/// How long an answer may still take when the connection's time is over, or the service stops.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// Pause after an error of the listener: descriptors do not come back sooner for being asked for.
const PAUSE: Duration = Duration::from_millis(100);

/// Who asks: an extension of each request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The open connections, the oldest first.
#[derive(Debug, Default)]
struct Connections {
    tasks: JoinSet<()>,
    open: VecDeque<Connection>,
}

#[derive(Debug)]
struct Connection {
    task: AbortHandle,
    /// Whether a request was complete.
    asked: Arc<AtomicBool>,
}

/// Answers on `listener` until stopped; what is being answered then still is, for a second.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut connections = Connections::default();
    let mut failing = false;
    while !stop.is_cancelled() {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                connections.make_room().await;
                let asked = Arc::new(AtomicBool::new(false));
                let from = (stream, Peer(peer));
                let answers = answer(from, router.clone(), Arc::clone(&asked), stop.clone());
                let task = connections.tasks.spawn(answers);
                connections.open.push_back(Connection { task, asked });
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "HTTP takes no connections for now");
                }
                failing = true;
                connections.close_one().await;
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(PAUSE) => (),
                }
            }
        }
    }
    drop(listener);
    while connections.tasks.join_next().await.is_some() {}
}

impl Connections {
    async fn make_room(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|connection| !connection.task.is_finished());
        while MOST <= self.open.len() {
            self.close_one().await;
        }
    }

    /// Closes the oldest connection that has not asked anything; where all have, the oldest.
    async fn close_one(&mut self) {
        let silent =
            self.open.iter().position(|connection| !connection.asked.load(Ordering::Relaxed));
        let Some(Connection { task, .. }) = self.open.remove(silent.unwrap_or(0)) else { return };
        task.abort();
        // Its descriptor is free when it has ended.
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

/// Answers one connection.
async fn answer(
    (stream, peer): (TcpStream, Peer),
    router: Router,
    asked: Arc<AtomicBool>,
    stop: CancellationToken,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(peer);
        router.call(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER).max_buf_size(LONGEST_HEADER);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // What a stranger does wrong ends the connection, and is nothing to log.
        _ended = connection.as_mut() => return,
        () = stop.cancelled() => (),
        () = tokio::time::sleep(LIFE) => (),
    }
    connection.as_mut().graceful_shutdown();
    drop(tokio::time::timeout(LAST_ANSWER, connection).await);
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream};

    use axum::routing::get;

    use super::*;

    const ASK: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";

    /// Runs `scene` against a server, then stops it and waits for its end.
    fn with_server(scene: impl FnOnce(SocketAddr)) {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/livez", get(async || "alive\n"));
        let stop = CancellationToken::new();
        let server = runtime.spawn(serve(listener, router, stop.clone()));
        scene(address);
        stop.cancel();
        runtime.block_on(server).unwrap();
    }

    /// A connection on which this was written.
    fn written(address: SocketAddr, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // It may be closed before all was written.
        drop(stream.write_all(bytes));
        stream
    }

    /// Everything up to the end of the connection; what was read before a reset counts.
    #[track_caller]
    fn rest(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        if let Err(error) = stream.read_to_end(&mut bytes) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
        String::from_utf8(bytes).unwrap()
    }

    #[track_caller]
    fn probe(address: SocketAddr) {
        let close = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let said = rest(&mut written(address, close));
        assert!(said.ends_with("alive\n"), "{said:?}");
    }

    #[test]
    fn a_probe_is_answered_while_others_hold_every_connection() {
        let second = [ASK, b"GET /"].concat();
        for held in [b"", &b"GET /livez HTTP/1.1\r\nX: "[..], ASK, &second, &ASK.repeat(1_000)] {
            with_server(|address| {
                let mut strangers: Vec<_> = (0..2 * MOST).map(|_| written(address, held)).collect();
                probe(address);
                strangers.iter_mut().take(MOST).for_each(|stranger| drop(rest(stranger)));
            });
        }
    }

    #[test]
    fn who_has_asked_is_kept_before_who_has_not() {
        with_server(|address| {
            let mut regular = written(address, ASK);
            let mut answer = [0; 512];
            assert_ne!(regular.read(&mut answer).unwrap(), 0);
            let strangers: Vec<_> = (0..3 * MOST).map(|_| written(address, b"GET")).collect();
            regular.write_all(ASK).unwrap();
            assert_ne!(regular.read(&mut answer).unwrap(), 0, "the same connection, again");
            drop(strangers);
        });
    }

    #[test]
    fn a_header_has_a_length() {
        with_server(|address| {
            let long = "GET /livez HTTP/1.1\r\nX: ".to_owned() + &"a".repeat(2 * LONGEST_HEADER);
            let said = rest(&mut written(address, long.as_bytes()));
            assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
        });
    }

    #[test]
    fn silence_ends_though_nobody_waits_for_the_place() {
        with_server(|address| {
            let mut silent = written(address, b"");
            let mut half = written(address, b"GET /livez HTTP/1.1\r\nX: ");
            let mut kept = written(address, ASK);
            assert_eq!(rest(&mut silent), "");
            assert!(!rest(&mut half).contains("alive"));
            assert!(rest(&mut kept).ends_with("alive\n"), "an answer, and then the end");
        });
    }

    #[test]
    fn a_stop_does_not_wait_for_strangers() {
        let mut half = None;
        with_server(|address| {
            half = Some(written(address, b"GET /livez HTTP/1.1\r\nX: "));
            probe(address);
        });
        assert!(half.is_some(), "open until here");
    }
}
