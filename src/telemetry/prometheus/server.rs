//! A small HTTP server, with a thread of its own.

use std::future::ready;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// Of OpenMetrics 1.0, which Prometheus takes since 2.5.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the registry at `/metrics` from now on.
pub(super) fn start(listener: TcpListener, registry: Registry) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let registry = Arc::new(registry);
    let metrics = get(move || ready(expose(&registry)));
    let router = Router::new().route("/metrics", metrics);
    let serve = move || {
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, router).await
        });
        if let Err(error) = served {
            tracing::warn!("metrics are not served any more: {error}; training goes on");
        }
    };
    let thread = std::thread::Builder::new().name("metrics".into());
    thread.spawn(serve).map(drop)
}

fn expose(registry: &Registry) -> Response {
    let mut body = String::new();
    match text::encode(&mut body, registry) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response(),
        // A string takes all that is written to it.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
