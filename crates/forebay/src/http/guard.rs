//! Who may ask what: bearer tokens, the origins of web pages, and how bodies are framed. Judges heads
//! alone; reads no body.

use hyper::Uri;
use hyper::header::{self, HeaderMap};

use super::problem::Problem;
use super::routes::Route;
use crate::catalogue;
use crate::config::{Config, Token};

/// Refuses a transfer coding beside `chunked`: whoever undoes it elsewhere sees another body.
///
/// # Errors
/// 400; the connection closes.
pub fn check_framing(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let (Some(first), second) = (codings.next(), codings.next()) else { return Ok(()) };
    if first.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") && second.is_none() {
        return Ok(());
    }
    Err(Problem::new(
        catalogue::BAD_HEADER,
        "Transfer-Encoding must be `chunked` and nothing else; a compressed body has a Content-Encoding",
    ))
}

/// Refuses a browser's request from a page of another origin.
///
/// # Errors
/// 403.
pub fn check_origin(config: &Config, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or("null");
    if config.http.origins.iter().any(|allowed| allowed == origin) {
        return Ok(());
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = origin
        .parse::<Uri>()
        .ok()
        .and_then(|uri| uri.authority().map(|authority| authority.as_str().to_owned()));
    let own = authority.as_deref().is_some_and(|authority| Some(authority) == host);
    // A page may give its own name our address; on loopback only loopback's names are ours.
    let ours = own
        && (!config.listen.ip().is_loopback() || authority.as_deref().is_some_and(names_loopback));
    if ours {
        return Ok(());
    }
    Err(Problem::new(
        catalogue::CROSS_ORIGIN,
        format!("the origin `{}` is not allowed; add it to [http] origins", shorten(origin)),
    ))
}

fn names_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The holder of the request's token; `None` where no tokens are configured or none is needed.
///
/// # Errors
/// 401 without a valid token, 403 where the holder may not.
pub fn authorise<'a>(
    config: &'a Config,
    headers: &HeaderMap,
    route: Route,
    stream: Option<&str>,
) -> Result<Option<&'a Token>, Problem> {
    if config.tokens.is_empty() || route.is_public() {
        return Ok(None);
    }
    let unauthorised = |detail: &str| Problem::new(catalogue::UNAUTHORIZED, detail);
    let presented = headers
        .get(header::AUTHORIZATION)
        .ok_or_else(|| unauthorised("send `Authorization: Bearer TOKEN`"))?;
    let token = presented
        .as_bytes()
        .split_at_checked(7)
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
        .ok_or_else(|| unauthorised("the Authorization header must be `Bearer TOKEN`"))?
        .1;
    let holder = config
        .tokens
        .find(token.trim_ascii())
        .ok_or_else(|| unauthorised("the token is not known"))?;
    let allowed = match (route, stream) {
        (Route::Ingest, Some(stream)) => holder.may_write(stream),
        _ => holder.is_unrestricted(),
    };
    if allowed {
        return Ok(Some(holder));
    }
    Err(Problem::new(
        catalogue::FORBIDDEN,
        format!("the token `{}` may write only: {}", holder.name, holder.streams.join(", ")),
    ))
}

/// At most 64 characters, none of them a control.
pub fn shorten(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_goes_by_few_names() {
        for name in ["localhost:8080", "localhost", "127.0.0.1:1", "[::1]:8080", "127.9.9.9"] {
            assert!(names_loopback(name), "{name}");
        }
        for name in ["evil.example:8080", "10.0.0.1:8080", "localhost.evil.example", ""] {
            assert!(!names_loopback(name), "{name}");
        }
    }
}
