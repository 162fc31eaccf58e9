//! One connection, and the outermost layer of its requests: id, origin, token, drain, problem bodies.
//!
//! Owns the socket. A request whose body was not read to the end is answered first; then a little of
//! the rest is read and thrown away, so that the peer gets to see the answer, and the connection closes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use forebay_flow::{Ctx, clock};
use futures_util::FutureExt;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tower::ServiceExt;

use super::App;
use super::guard;
use super::problem::Problem;
use super::routes::Route;
use super::stall::StallGuard;
use crate::api::Refusal;
use crate::catalogue;
use crate::config::memory::CONNECTION_BUFFER;
use crate::telemetry::http::ConnectionGauge;

/// What is read of an unwanted body after its answer.
const DRAIN_BYTES: usize = 256 << 10;
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// How long a peer may leave its answer unread.
const WRITE_STALL: Duration = Duration::from_secs(30);
/// The most headers of a request.
const MAX_HEADERS: usize = 100;
const REQUEST_ID: &str = "x-request-id";

/// What the requests of one connection share.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) app: Arc<App>,
    router: axum::Router,
    pub(super) peer: SocketAddr,
    control_only: bool,
    leftover: Mutex<Option<Body>>,
    left: Notify,
    _gauge: ConnectionGauge,
}

/// What a route sees of its request beside head and body.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) connection: Arc<Connection>,
    pub(super) request_id: String,
    /// The token's name, or the peer's address.
    pub(super) tenant: String,
    /// The client waits for `100 Continue` and has not sent its body.
    pub(super) expects_continue: bool,
}

impl Caller {
    /// Leaves a body that was not read to its end; the connection closes after the answer.
    /// `untouched`: no byte was asked for yet.
    pub(super) fn leave(&self, body: Body, untouched: bool) {
        if body.is_end_stream() {
            return;
        }
        // A client that waits for `100 Continue` must not get it now.
        let rest = if untouched && self.expects_continue { Body::empty() } else { body };
        *self.connection.leftover.lock() = Some(rest);
    }
}

impl Connection {
    pub(super) fn new(
        app: Arc<App>,
        router: axum::Router,
        peer: SocketAddr,
        control_only: bool,
        gauge: ConnectionGauge,
    ) -> Arc<Connection> {
        Arc::new(Connection {
            app,
            router,
            peer,
            control_only,
            leftover: Mutex::new(None),
            left: Notify::new(),
            _gauge: gauge,
        })
    }

    /// Reads what was left of bodies, up to the bounds. Never ends: it is dropped with the connection.
    async fn drain_leftovers(&self, draining: &Mutex<Option<Body>>) -> Infallible {
        loop {
            self.left.notified().await;
            let Some(mut body) = draining.lock().take() else { continue };
            let read = async {
                let mut read = 0;
                while read < DRAIN_BYTES {
                    match body.frame().await {
                        Some(Ok(frame)) => read += frame.data_ref().map_or(0, bytes::Bytes::len),
                        _ => break,
                    }
                }
            };
            drop(tokio::time::timeout(DRAIN_TIME, read).await);
        }
    }
}

/// Serves one socket until it closes or `ctx` is cancelled and its request in flight is answered.
pub(super) async fn run(ctx: Ctx, connection: Arc<Connection>, socket: TcpStream) {
    // A small answer must not wait for the peer's acknowledgement of the one before.
    drop(socket.set_nodelay(true));
    let http = &connection.app.config.http;
    let draining = Arc::new(Mutex::new(None));
    let service = service_fn({
        let (connection, draining) = (Arc::clone(&connection), Arc::clone(&draining));
        move |request| handle(Arc::clone(&connection), Arc::clone(&draining), request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(http.header_deadline)
        .max_header_size(http.max_header)
        .max_headers(MAX_HEADERS)
        .max_buf_size(CONNECTION_BUFFER.max(http.max_header * 2))
        .serve_connection(TokioIo::new(StallGuard::new(socket, WRITE_STALL)), service);
    let mut serving = pin!(serving);
    let mut leftovers = pin!(connection.drain_leftovers(&draining));
    let mut closing = false;
    loop {
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(peer = %connection.peer, %error, "the connection broke");
                }
                return;
            }
            never = leftovers.as_mut() => match never {},
            _ = ctx.cancelled(), if !closing => {
                closing = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn handle(
    connection: Arc<Connection>,
    draining: Arc<Mutex<Option<Body>>>,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let began = clock::now();
    let route = Route::of(request.uri().path());
    let request_id = request_id(request.headers());
    // Where a proxy in front took a Content-Length beside it for the truth (hyper drops that length,
    // as RFC 9112 asks), what follows on this connection may be another client's: nothing does.
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let app = Arc::clone(&connection.app);
    // F10: the drain waits for these; health and metrics are asked to the very end.
    let in_flight = (!route.is_control()).then(|| app.enter());
    let answer = AssertUnwindSafe(answer(&connection, route, request_id.clone(), request));
    let mut response = match Box::pin(answer.catch_unwind()).await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(route = route.as_str(), request_id, "a request handler panicked");
            axum::response::IntoResponse::into_response(Problem::new(
                catalogue::INTERNAL,
                "the request ended by a fault of the server; its outcome is unknown",
            ))
        }
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let headers = std::mem::take(response.headers_mut());
        response = problem.render(&request_id, headers);
    }
    let leftover = connection.leftover.lock().take();
    if chunked || leftover.is_some() || app.is_draining() || connection.control_only {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if leftover.is_some() {
        *draining.lock() = leftover;
        connection.left.notify_one();
    }
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    app.metrics.answered(route, response.status(), began.elapsed());
    drop(in_flight);
    Ok(response)
}

async fn answer(
    connection: &Arc<Connection>,
    route: Route,
    request_id: String,
    request: Request<Incoming>,
) -> Response {
    let app = &connection.app;
    let (parts, body) = request.into_parts();
    let expects_continue = parts
        .headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let mut caller = Caller {
        connection: Arc::clone(connection),
        request_id,
        tenant: connection.peer.ip().to_string(),
        expects_continue,
    };
    let body = Body::new(body);
    let stream = route.stream(parts.uri.path());
    let admitted = guard::check_framing(&parts.headers)
        .and_then(|()| guard::check_origin(&app.config, &parts.headers))
        .and_then(|()| guard::authorise(&app.config, &parts.headers, route, stream.as_deref()))
        .and_then(|holder| match holder {
            _ if route.is_control() => Ok(holder),
            _ if app.is_draining() => Err(refuse(app, Refusal::Draining, &parts.headers)),
            _ if connection.control_only => Err(refuse(app, Refusal::Connections, &parts.headers)),
            _ => Ok(holder),
        });
    match admitted {
        Err(problem) => {
            caller.leave(body, true);
            axum::response::IntoResponse::into_response(problem)
        }
        Ok(holder) => {
            if let Some(holder) = holder {
                caller.tenant = holder.name.clone();
            }
            let mut request = Request::from_parts(parts, body);
            request.extensions_mut().insert(caller);
            match connection.router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    }
}

fn refuse(app: &App, reason: Refusal, headers: &HeaderMap) -> Problem {
    app.telemetry.refused(reason);
    app.metrics.refused(headers);
    Problem::overloaded(reason, Duration::from_secs(1))
}

/// The client's id if it is short and plain, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    headers
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| {
            (1..=128).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
        })
        .map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned)
}
