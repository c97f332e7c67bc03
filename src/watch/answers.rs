//! What requests are answered with: the page, its style and script, the state of the runs and the
//! points of their charts.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State as Shares};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::get;
use serde::{Deserialize, Serialize};

use super::Shared;
use super::access::{Access, Verdict, cookie_name};
use crate::report::page::{SCRIPT, STYLE, served};
use crate::report::view::{Series, State};

/// The most buckets of a chart that are computed for one request.
const BUCKETS: usize = 4000;

/// On every answer: nothing from elsewhere, in no frame, and kept nowhere.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CACHE_CONTROL, "no-store"),
    (REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// A page that goes on to the dashboard by itself. An answer that forwards the browser would not
/// do: coming from another site's link, it would not send the new cookie along.
const SIGNED_IN: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
<meta http-equiv=\"refresh\" content=\"0;url=./\"><title>Training runs</title>\
<p>Signed in. <a href=\"./\">Go on to the runs</a></p></html>";

/// All that is answered.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route(
            "/",
            get(|| async { answer(StatusCode::OK, HTML, served("style.css", "script.js")) }),
        )
        .route(
            "/style.css",
            get(|| async { answer(StatusCode::OK, "text/css; charset=utf-8", STYLE) }),
        )
        .route(
            "/script.js",
            get(|| async { answer(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT) }),
        )
        .route("/api/state", get(state))
        .route("/api/series", get(series))
        .fallback(|| async { answer(StatusCode::NOT_FOUND, TEXT, "there is nothing here\n") })
        .layer(from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

/// Lets a request through that may read, and puts the headers on its answer.
async fn guard(
    Shares(shared): Shares<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let port = shared.address.port();
    let verdict = shared.access.judge(port, request.uri(), request.headers());
    let mut response = match verdict {
        Verdict::Welcome => next.run(request).await,
        Verdict::SignIn => sign_in(&shared),
        Verdict::NoToken => answer(
            StatusCode::UNAUTHORIZED,
            TEXT,
            "A token is needed: open the address that `pretrain watch` printed.\n",
        ),
        Verdict::WrongHost => answer(
            StatusCode::FORBIDDEN,
            TEXT,
            "This page is for this machine alone: open it as localhost.\n",
        ),
    };
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn sign_in(shared: &Shared) -> Response<Body> {
    let mut response = answer(StatusCode::OK, HTML, SIGNED_IN);
    if let Access::Token(token) = &shared.access {
        let name = cookie_name(shared.address.port());
        let cookie = format!(
            "{name}={}; Path=/; HttpOnly; SameSite=Strict",
            token.reveal()
        );
        // Tokens have no characters that a header could not have.
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
    }
    response
}

async fn state(Shares(shared): Shares<Arc<Shared>>) -> Response<Body> {
    computed(move || Some(as_json(&State::of(shared.places().runs())))).await
}

/// What a chart asks for: a run, its first and last step, and the buckets.
#[derive(Deserialize)]
struct Wanted {
    run: usize,
    from: Option<u64>,
    to: Option<u64>,
    buckets: Option<usize>,
}

async fn series(
    Shares(shared): Shares<Arc<Shared>>,
    Query(wanted): Query<Wanted>,
) -> Response<Body> {
    computed(move || {
        let places = shared.places();
        let run = places.runs().get(wanted.run)?;
        let range = wanted.from.unwrap_or(0)..=wanted.to.unwrap_or(u64::MAX);
        let buckets = wanted.buckets.unwrap_or(1000).min(BUCKETS);
        let series = Series::of(wanted.run, run, range, buckets);
        drop(places);
        Some(as_json(&series))
    })
    .await
}

/// An answer that takes a while to compute, so not on the thread that serves the others.
async fn computed(compute: impl FnOnce() -> Option<Vec<u8>> + Send + 'static) -> Response<Body> {
    match tokio::task::spawn_blocking(compute).await {
        Ok(Some(json)) => answer(StatusCode::OK, JSON, json),
        Ok(None) => answer(StatusCode::NOT_FOUND, TEXT, "there is no such run\n"),
        Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "this went wrong\n"),
    }
}

fn as_json(value: &impl Serialize) -> Vec<u8> {
    // Plain structs of numbers and text: serde_json has no way to fail on them.
    serde_json::to_vec(value).expect("the data are plain JSON")
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
