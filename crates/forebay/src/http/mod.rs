//! The HTTP side: a listener, a bounded number of connections, and the routes.
//!
//! ```text
//! accept ─► connection (head deadline, size) ─► handle (origin, token, drain) ─► route ─► engine
//! ```
//!
//! Owns sockets and what is in flight on them; owns no rows. A request is judged by its head before
//! its body is read, and every refusal is a [`problem::Problem`].

pub mod body;
mod connection;
mod dead_letters;
mod guard;
mod ingest;
mod inspect;
mod media;
pub mod problem;
mod query;
mod resume;
mod routes;
pub use routes::Route;
mod stall;
mod streams;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use forebay_flow::admit::slots::{SlotError, Slots};
use forebay_flow::budget::Permit;
use forebay_flow::{Ctx, Instant, Scope, clock};
use prometheus::Registry;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;

use crate::api::{Engine, Telemetry};
use crate::config::Config;
use crate::config::memory::CONTROL_CONNECTIONS;
use crate::telemetry::http::Metrics;

/// Connections that wait in the kernel for `accept`.
const BACKLOG: u32 = 1024;
/// How long a cancelled server waits for connections to end by themselves.
const GRACE: Duration = Duration::from_secs(2);

/// What every request sees.
#[derive(Debug)]
pub struct App {
    engine: Engine,
    config: Arc<Config>,
    registry: Registry,
    telemetry: Arc<Telemetry>,
    metrics: Metrics,
    patterns: media::Patterns,
    draining: AtomicBool,
    in_flight: AtomicUsize,
    idle: Notify,
}

impl App {
    /// Serves `engine` by `config`; `registry` is what `/metrics` shows.
    pub fn new(
        engine: Engine,
        config: Arc<Config>,
        registry: Registry,
        telemetry: Arc<Telemetry>,
        metrics: Metrics,
    ) -> Arc<App> {
        Arc::new(App {
            engine,
            config,
            registry,
            telemetry,
            metrics,
            patterns: media::Patterns::default(),
            draining: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            idle: Notify::new(),
        })
    }

    /// From now on `/readyz` answers 503, and whatever is not control traffic is refused.
    /// The listener stays, so that a load balancer can see it.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Waits until no request but control traffic is in flight, at most until `deadline`.
    /// Returns how many still were. Cancel safe.
    pub async fn settled(&self, deadline: Instant) -> usize {
        let quiet = async {
            loop {
                let mut idle = std::pin::pin!(self.idle.notified());
                idle.as_mut().enable();
                if self.in_flight.load(Ordering::Acquire) == 0 {
                    return;
                }
                idle.await;
            }
        };
        drop(tokio::time::timeout_at(deadline, quiet).await);
        self.in_flight.load(Ordering::Acquire)
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn enter(self: &Arc<App>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(Arc::clone(self))
    }
}

/// One request that the drain waits for.
#[derive(Debug)]
struct InFlight(Arc<App>);

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// Takes the address.
///
/// # Errors
/// A text for people that says what to do.
pub fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restarted server must not wait for its predecessor's connections to time out.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "cannot listen on {address}: the port is in use; stop the other process or choose another with --listen"
        ),
        std::io::ErrorKind::PermissionDenied => format!(
            "cannot listen on {address}: not permitted; ports below 1024 need a privilege, choose another with --listen"
        ),
        _ => format!("cannot listen on {address}: {error}"),
    })
}

/// A connection's place among the bounded number.
#[derive(Debug)]
struct Slot {
    /// Held until the connection ends.
    _permit: Permit,
    /// True beyond the limit: control traffic alone is answered.
    control_only: bool,
}

/// Accepts connections until `ctx` is cancelled; then lets those in flight answer, within a grace.
///
/// # Errors
/// None now; accept errors are counted and retried, since they pass.
pub async fn serve(
    ctx: Ctx,
    app: Arc<App>,
    listener: Arc<TcpListener>,
) -> Result<(), std::io::Error> {
    let normal = Slots::new("connections", app.config.http.max_connections as u64);
    let control = Slots::new("control connections", CONTROL_CONNECTIONS as u64);
    let scope = Scope::new(&ctx, "connections");
    let router = routes::router(Arc::clone(&app));
    ctx.ready();
    while let Ok(accepted) = ctx.run(listener.accept()).await {
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                refused_accept(&app, &error).await;
                continue;
            }
        };
        let Ok(slot) = place(&ctx, &normal, &control).await else { break };
        start(&scope, &app, &router, slot, socket, peer);
    }
    scope.ctx().cancel(forebay_flow::Cause::Shutdown);
    let cut = scope.finish(clock::now() + GRACE).await;
    if cut.0 > 0 {
        tracing::warn!(connections = cut.0, "connections were cut at the end of the grace");
    }
    Ok(())
}

/// A place for one connection; beyond the limit, whichever kind is free first. Fails only when `ctx` is cancelled.
async fn place(ctx: &Ctx, normal: &Slots, control: &Slots) -> Result<Slot, SlotError> {
    if let Some(permit) = normal.try_acquire(1) {
        return Ok(Slot { _permit: permit, control_only: false });
    }
    let (permit, control_only) = tokio::select! {
        biased;
        permit = control.acquire(ctx, 1) => (permit, true),
        permit = normal.acquire(ctx, 1) => (permit, false),
    };
    Ok(Slot { _permit: permit?, control_only })
}

fn start(
    scope: &Scope,
    app: &Arc<App>,
    router: &axum::Router,
    slot: Slot,
    socket: TcpStream,
    peer: SocketAddr,
) {
    let connection = connection::Connection::new(
        Arc::clone(app),
        router.clone(),
        peer,
        slot.control_only,
        app.metrics.connection(),
    );
    let ctx = scope.ctx().clone();
    scope.spawn("connection", async move {
        connection::run(ctx, connection, socket).await;
        drop(slot);
    });
}

/// Out of descriptors, or a peer that left before it was taken: both pass.
async fn refused_accept(app: &App, error: &std::io::Error) {
    app.metrics.accept_failed();
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(50)).await;
}
