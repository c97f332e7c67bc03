//! Who may read.
//!
//! On a loopback address that is whoever is on this machine. The name by which a browser came has
//! to be a loopback one then: a page from elsewhere, whose name was made to mean this machine,
//! sends its own name. On any other address it is whoever has the token. A browser brings it once,
//! in the address that was printed, and gets a cookie for it that no script can read and no other
//! site can have sent.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use axum::http::header::{AUTHORIZATION, COOKIE, HOST};
use axum::http::{HeaderMap, Uri};
use subtle::ConstantTimeEq;

/// Who may read.
#[derive(Debug)]
pub enum Access {
    /// Everyone on this machine.
    Local,
    /// Whoever has the token.
    Token(Token),
}

/// What a reader must know. It is not shown in logs.
pub struct Token(String);

/// A token that could be guessed, or would not survive in an address.
#[derive(Debug, thiserror::Error)]
#[error("the token is not {SHORTEST} or more letters, digits, `-`, `_`, `.` or `~`")]
pub struct WeakToken;

/// Characters of a token, at least.
const SHORTEST: usize = 16;

/// Random bytes of a token that is drawn.
const DRAWN: usize = 24;

/// What a request is answered with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What it asks for.
    Welcome,
    /// A cookie, since it brings the token in its address.
    SignIn,
    /// Nothing: it has no token, or a wrong one.
    NoToken,
    /// Nothing: it comes by another name than this machine's own.
    WrongHost,
}

impl Token {
    /// Draws one.
    pub fn draw() -> Result<Token, getrandom::Error> {
        let mut bytes = [0; DRAWN];
        getrandom::fill(&mut bytes)?;
        Ok(Token(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
    }

    /// Takes one that was chosen.
    pub fn parse(text: &str) -> Result<Token, WeakToken> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
        match text.len() >= SHORTEST && text.chars().all(fits) {
            true => Ok(Token(text.to_owned())),
            false => Err(WeakToken),
        }
    }

    /// The token itself.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether a text is the token. The time it takes does not tell how much of it is right.
    fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Access {
    /// Whether readers at an address need a token.
    pub fn needs_token(address: &SocketAddr) -> bool {
        !address.ip().is_loopback()
    }

    /// What a request is answered with.
    pub(super) fn judge(&self, port: u16, uri: &Uri, headers: &HeaderMap) -> Verdict {
        let token = match self {
            Access::Local if comes_by_loopback(headers) => return Verdict::Welcome,
            Access::Local => return Verdict::WrongHost,
            Access::Token(token) => token,
        };
        let brought = uri.query().into_iter().flat_map(|query| query.split('&'));
        let mut brought = brought.filter_map(|pair| pair.strip_prefix("token="));
        if uri.path() == "/" && brought.any(|text| token.is(text)) {
            return Verdict::SignIn;
        }
        let name = cookie_name(port);
        let cookies = headers.get_all(COOKIE).into_iter();
        let cookies = cookies.filter_map(|header| header.to_str().ok());
        let mut cookies = cookies.flat_map(|header| header.split(';'));
        let signed_in = cookies.any(|cookie| {
            let pair = cookie.trim().split_once('=');
            pair.is_some_and(|(key, value)| key == name && token.is(value))
        });
        let bearer = headers
            .get(AUTHORIZATION)
            .and_then(|header| header.to_str().ok());
        let bearer = bearer.and_then(|text| text.strip_prefix("Bearer "));
        match signed_in || bearer.is_some_and(|text| token.is(text)) {
            true => Verdict::Welcome,
            false => Verdict::NoToken,
        }
    }
}

/// The name of the cookie. Browsers do not tell the ports of a machine apart.
pub(super) fn cookie_name(port: u16) -> String {
    format!("ankh-watch-{port}")
}

fn comes_by_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    // Any port: it may be forwarded from another one.
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(name, _)| name),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let address = name
        .parse()
        .is_ok_and(|address: IpAddr| address.is_loopback());
    address || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a-secret-of-some-length";

    fn verdict(access: &Access, uri: &str, headers: &[(&'static str, &str)]) -> Verdict {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        access.judge(7007, &uri.parse().unwrap(), &map)
    }

    #[test]
    fn only_the_whole_token_opens_and_its_address_is_the_page_s() {
        let access = Access::Token(Token::parse(SECRET).unwrap());
        let signed_in = format!("other=1; ankh-watch-7007={SECRET}");
        let bearer = format!("Bearer {SECRET}");
        let address = format!("/?a=1&token={SECRET}");
        assert_eq!(verdict(&access, &address, &[]), Verdict::SignIn);
        assert_eq!(
            verdict(&access, "/", &[("cookie", &signed_in)]),
            Verdict::Welcome
        );
        assert_eq!(
            verdict(&access, "/api", &[("authorization", &bearer)]),
            Verdict::Welcome
        );
        let longer = format!("/?token={SECRET}x");
        let elsewhere = format!("/api/state?token={SECRET}");
        for uri in ["/", "/?token=", "/?token=a-secret", &longer, &elsewhere] {
            assert_eq!(verdict(&access, uri, &[]), Verdict::NoToken, "{uri}");
        }
        for (name, value) in [
            ("cookie", format!("ankh-watch-7008={SECRET}")),
            ("cookie", "ankh-watch-7007=".to_owned()),
            ("authorization", SECRET.to_owned()),
            ("host", "localhost".to_owned()),
        ] {
            assert_eq!(
                verdict(&access, "/", &[(name, &value)]),
                Verdict::NoToken,
                "{value}"
            );
        }
    }

    #[test]
    fn without_a_token_a_name_from_elsewhere_is_refused() {
        for host in [
            "localhost:7007",
            "127.0.0.1",
            "[::1]:80",
            "LOCALHOST",
            "127.1.2.3:9",
        ] {
            assert_eq!(
                verdict(&Access::Local, "/", &[("host", host)]),
                Verdict::Welcome,
                "{host}"
            );
        }
        for host in [
            "evil.example",
            "localhost.evil.example:7007",
            "10.0.0.1",
            "",
        ] {
            assert_eq!(
                verdict(&Access::Local, "/", &[("host", host)]),
                Verdict::WrongHost,
                "{host}"
            );
        }
        assert_eq!(verdict(&Access::Local, "/", &[]), Verdict::WrongHost);
    }

    #[test]
    fn addresses_but_loopback_need_a_token_and_weak_ones_are_refused() {
        let needs = |address: &str| Access::needs_token(&address.parse().unwrap());
        assert!(!needs("127.0.0.1:1") && !needs("[::1]:1"));
        assert!(needs("0.0.0.0:1") && needs("[::]:1") && needs("10.0.0.1:1"));
        for weak in [
            "",
            "short",
            "has spaces in its middle",
            "percent%20percent%20",
        ] {
            assert!(Token::parse(weak).is_err(), "{weak:?}");
        }
        let (one, other) = (Token::draw().unwrap(), Token::draw().unwrap());
        assert_ne!(one.reveal(), other.reveal());
        assert!(Token::parse(one.reveal()).is_ok());
        assert_eq!(format!("{one:?}"), "Token");
    }
}
