//! The control thread: metrics and health over HTTP, on an ordinary tokio runtime, away from the
//! shards and not pinned. It reads their counters and never asks them anything, so that whatever
//! scrapes it costs the data plane nothing.
//!
//! Not owned: the counters, and what runs (the server, which starts this).

mod metrics;

use crate::base::{DiskSpace, ShardStats};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::LocalSet;

/// A shard turns at least once a second; one that has not for so long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// Patience with a client that does not finish its request.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);

/// Who asks at once; others wait, and take no descriptors from the logs.
const CONNECTIONS_MAX: usize = 16;

/// Rest after an accept that failed, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What there is to look at.
#[derive(Debug)]
pub struct Observed {
    /// The counters of every shard, in their order.
    pub shards: Vec<Arc<ShardStats>>,
    /// How full the disk is.
    pub space: Arc<DiskSpace>,
    /// The io back end's name.
    pub backend: &'static str,
}

/// The running control thread; it ends when this is dropped.
pub struct Admin {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Takes the address, port 0 any free one. Done early, so that a busy port is found before anything
/// is touched; who asks before the broker serves waits. The error is a whole sentence.
pub fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let refuse = |error: io::Error| {
        let why = format!(
            "cannot serve metrics on {listen}: {error}; choose another --admin-listen or none"
        );
        io::Error::new(error.kind(), why)
    };
    let listener = TcpListener::bind(listen).map_err(refuse)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Admin {
    /// Serves what there is to see.
    pub fn start(listener: TcpListener, observed: Observed) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let site = Arc::new(Site {
            observed: Arc::new(observed),
            turned: Mutex::default(),
        });
        let thread = std::thread::Builder::new().name("admin".to_owned());
        let thread = thread.spawn(move || {
            let serve = LocalSet::new();
            serve.block_on(&runtime, async {
                tokio::select! {
                    () = site.serve(listener) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say but a panic that was printed already.
            let _ = thread.join();
        }
    }
}

/// What is served.
struct Site {
    observed: Arc<Observed>,
    /// By shard, the turns last seen and since when there are so many.
    turned: Mutex<Vec<(u64, Instant)>>,
}

impl Site {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "metrics are not served"),
        };
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Ok(place) = places.clone().acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let site = self.clone();
            tokio::task::spawn_local(async move {
                let answer = service_fn(|request| {
                    let response = site.answer(&request);
                    async { Ok::<_, Infallible>(response) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_PATIENCE)
                    .serve_connection(TokioIo::new(stream), answer);
                // A client that breaks off has no one to be told.
                let _ = connection.await;
                drop(place);
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            return response;
        }
        match request.uri().path() {
            "/metrics" => {
                let mut response = plain(StatusCode::OK, &metrics::text(&self.observed));
                let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            "/health" => match self.stuck(Instant::now()).as_slice() {
                [] => plain(StatusCode::OK, "ok\n"),
                stuck => {
                    let why = format!("shards that do not turn: {stuck:?}\n");
                    plain(StatusCode::SERVICE_UNAVAILABLE, &why)
                }
            },
            _ => plain(StatusCode::NOT_FOUND, "there is /metrics and /health\n"),
        }
    }

    /// The shards that have not turned for too long, as far as earlier looks can tell.
    fn stuck(&self, now: Instant) -> Vec<usize> {
        let mut turned = self.turned.lock().unwrap_or_else(PoisonError::into_inner);
        let shards = &self.observed.shards;
        turned.resize(shards.len(), (0, now));
        let stuck = shards.iter().zip(turned.iter_mut()).map(|(shard, seen)| {
            let turns = shard.turns.get();
            if turns != seen.0 {
                *seen = (turns, now);
            }
            now - seen.1 > STUCK_AFTER
        });
        let stuck = stuck.enumerate().filter(|(_, stuck)| *stuck);
        stuck.map(|(shard, _)| shard).collect()
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_does_not_turn_is_named() {
        let site = Site {
            observed: Arc::new(Observed {
                shards: vec![Arc::default(), Arc::default()],
                space: Arc::default(),
                backend: "posix",
            }),
            turned: Mutex::default(),
        };
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(site.stuck(start).is_empty(), "nothing is known yet");
        site.observed.shards[0].turns.add(1);
        assert!(site.stuck(after(5)).is_empty(), "not for long enough");
        assert_eq!(site.stuck(after(6)), [1]);
        assert_eq!(site.stuck(after(11)), [0, 1]);
        site.observed.shards[1].turns.add(1);
        assert_eq!(site.stuck(after(12)), [0]);
    }
}
