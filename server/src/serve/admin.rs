//! A second address, for whoever watches over the server: `/health` and `/metrics`, over HTTP.

use super::Context;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Connections at a time: those who watch are few.
const CONNECTIONS_MAX: usize = 256;
/// How long a client may take to ask, and how long a connection may last.
const HEADER_TIME: Duration = Duration::from_secs(1);
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// The content type of OpenMetrics.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Answers until the server stops.
pub(super) async fn listen(listener: TcpListener, context: Arc<Context>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut stopping = context.stopping.clone();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        let Ok((socket, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let context = Arc::clone(&context);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&context)));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
            // Whoever asks for nonsense is told so by the protocol; there is nothing to do about it here.
            let _ = timeout(CONNECTION_TIME, http.serve_connection(TokioIo::new(socket), service)).await;
            drop(place);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    context: Arc<Context>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    Ok(match (request.method(), path.as_str()) {
        (&Method::GET | &Method::HEAD, "/health") => health(&context),
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let text = context.waiting.spawn_blocking({
                let context = Arc::clone(&context);
                move || context.metrics.text()
            });
            match text.await {
                Ok(Ok(text)) => respond(StatusCode::OK, OPEN_METRICS, text),
                _ => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the metrics could not be collected\n"),
            }
        }
        (_, "/health" | "/metrics") => respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "use GET\n"),
        _ => respond(StatusCode::NOT_FOUND, TEXT, "there are /health and /metrics\n"),
    })
}

/// Healthy is who takes appends in all stores that are open.
fn health(context: &Context) -> Response<Full<Bytes>> {
    let poisoned = context.stores.all_open().into_iter().find_map(|open| {
        let reason = open.store.poison()?;
        Some(format!("the store \"{}\" takes no appends: {reason}\n", open.name.escape_debug()))
    });
    match poisoned {
        Some(reason) => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, reason),
        None if *context.stopping.borrow() => {
            respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the server is shutting down\n")
        }
        None => respond(StatusCode::OK, TEXT, "ok\n"),
    }
}

fn respond(status: StatusCode, content: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content);
    response
}
