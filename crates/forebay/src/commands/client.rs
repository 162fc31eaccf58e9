//! Requests to a running server, over plain HTTP. One connection, one request.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use forebay_flow::{Ctx, Task};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::http::request::Builder;
use hyper::{Method, Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// A server by its URL, and the token that is shown to it.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) url: String,
    host: String,
    port: u16,
    authority: String,
    token: Option<HeaderValue>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// Nobody answers there: nothing was sent.
    #[error("no server answers at {url}; is `forebay serve` running?")]
    Unreachable {
        /// As it was given.
        url: String,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke: whether the request arrived is unknown.
    #[error("the connection broke: {}", innermost(.0))]
    Broken(#[from] hyper::Error),
}

impl Server {
    /// Reads the URL.
    ///
    /// # Errors
    /// A text for people.
    pub(super) fn new(url: &str, token: Option<&str>) -> anyhow::Result<Server> {
        let base: Uri = url.parse().with_context(|| format!("`{url}` is not a URL"))?;
        if base.scheme_str() != Some("http") {
            bail!("`{url}` must begin with http://");
        }
        let host = base.host().ok_or_else(|| anyhow!("`{url}` names no host"))?;
        let token = token.map(|token| HeaderValue::try_from(format!("Bearer {token}")));
        Ok(Server {
            url: url.to_owned(),
            host: host.trim_matches(['[', ']']).to_owned(),
            port: base.port_u16().unwrap_or(80),
            authority: base.authority().map_or(host, |authority| authority.as_str()).to_owned(),
            token: token.transpose().map_err(|_| anyhow!("the token holds a control character"))?,
        })
    }

    /// A request to this server, with what every request has.
    pub(super) fn request(&self, method: Method, path: &str) -> Builder {
        let mut request =
            Request::builder().method(method).uri(path).header(header::HOST, &self.authority);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        request
    }

    /// Sends a request. The answer can be read while the task lives; dropping it, or this future,
    /// closes the connection.
    ///
    /// # Errors
    /// [`Lost`]: no answer came.
    pub(super) async fn send<B>(
        &self,
        ctx: &Ctx,
        request: Request<B>,
    ) -> Result<(Response<Incoming>, Task<()>), Lost>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + 'static,
    {
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let socket = match tokio::time::timeout(CONNECT, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        };
        let socket =
            socket.map_err(|source| Lost::Unreachable { url: self.url.clone(), source })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        let driver = ctx.spawn("connection", async {
            // What breaks the connection breaks the answer too, and is told there.
            drop(connection.await);
        });
        Ok((sender.send_request(request).await?, driver))
    }
}

/// Posts `body` to `path` at `url`, with the token of FOREBAY_TOKEN. The answer can be read while the
/// task lives.
pub(super) async fn post(
    url: &str,
    path: &str,
    content_type: &str,
    accept: &str,
    body: Bytes,
) -> anyhow::Result<(Response<Incoming>, Task<()>)> {
    let server = Server::new(url, std::env::var("FOREBAY_TOKEN").ok().as_deref())?;
    let request = server
        .request(Method::POST, path)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::ACCEPT, accept)
        .body(Full::new(body))?;
    Ok(server.send(&Ctx::root("client"), request).await?)
}

/// The innermost cause: outer texts say little.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
