//! The pages as a service of tower and axum, or of hyper.
//!
//! Owns nothing, and never reads a request's body.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use super::{Reply, respond};

/// A response under way.
type Answer = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// Serves the debug pages. It holds nothing: make one wherever one is needed.
///
/// With axum, at `/debug` or nested anywhere (see `examples/debug_routes.rs`):
///
/// ```
/// use forebay_flow::debug::Routes;
/// let app: axum::Router = axum::Router::new()
///     .route_service("/debug", Routes)
///     .route_service("/debug/{page}", Routes);
/// ```
///
/// With hyper alone, as (part of) a service function:
///
/// ```
/// # use std::convert::Infallible;
/// use forebay_flow::debug::Routes;
/// let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| {
///     let answer = Routes.answer(&request);
///     async move { Ok::<_, Infallible>(answer.await) }
/// });
/// # drop(service);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Routes;

impl Routes {
    /// The response to `request`: a page, 404 where there is none, 405 unless it only asks.
    ///
    /// # Cancel safety
    /// As [`respond`].
    ///
    /// # Panics
    /// When awaited outside of a Tokio runtime with a timer.
    #[must_use]
    pub fn answer<B>(self, request: &Request<B>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused =
                response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Box::pin(ready(refused));
        }
        let (path, query) =
            (request.uri().path().to_owned(), request.uri().query().map(str::to_owned));
        Box::pin(async move {
            match respond(&path, query.as_deref()).await {
                Some(Reply { status, content_type, body }) => {
                    // `respond` says 200 or 400.
                    let status = StatusCode::from_u16(status).unwrap_or_default();
                    response(status, content_type, body)
                }
                None => {
                    response(StatusCode::NOT_FOUND, TEXT, "no such page: see /debug\n".to_owned())
                }
            }
        })
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // It is out of date the moment it is sent.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl<B> tower_service::Service<Request<B>> for Routes {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answer = self.answer(&request);
        Box::pin(async move { Ok(answer.await) })
    }
}
