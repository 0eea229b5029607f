//! An answer, whole or made in steps while it is sent.

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    body::{Body, Frame, SizeHint},
    header,
};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

const TEXT: &str = "text/plain; charset=UTF-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=UTF-8";

/// Appends the next piece of a page; false when that was the last.
pub type Step = Box<dyn FnMut(&mut Vec<u8>) -> bool>;

pub struct Reply {
    pub status: StatusCode,
    pub content_type: &'static str,
    pub page: Page,
}

pub enum Page {
    Whole(Bytes),
    Steps(Step),
}

impl Reply {
    pub fn text(text: impl Into<Bytes>) -> Reply {
        Reply { status: StatusCode::OK, content_type: TEXT, page: Page::Whole(text.into()) }
    }

    pub fn json(text: impl Into<Bytes>) -> Reply {
        Reply { content_type: JSON, ..Reply::text(text) }
    }

    pub fn html(text: impl Into<Bytes>) -> Reply {
        Reply { content_type: HTML, ..Reply::text(text) }
    }

    pub fn steps(content_type: &'static str, step: Step) -> Reply {
        Reply { status: StatusCode::OK, content_type, page: Page::Steps(step) }
    }

    pub fn ok() -> Reply {
        Reply::text("OK\n")
    }

    pub fn refused(status: StatusCode, text: impl Into<Bytes>) -> Reply {
        Reply { status, ..Reply::text(text) }
    }

    pub fn bad_request(text: impl Into<Bytes>) -> Reply {
        Reply::refused(StatusCode::BAD_REQUEST, text)
    }

    /// A value as Envoy prints it: one space a level.
    pub fn value(value: &serde_json::Value) -> Reply {
        Reply::json(pretty(value))
    }

    pub fn into_response(self) -> Response<PageBody> {
        let mut response = Response::new(PageBody { page: Some(self.page), yielded: false });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, self.content_type),
            (header::CACHE_CONTROL, "no-cache, max-age=0"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::SERVER, "corelane"),
        ] {
            headers.insert(name, header::HeaderValue::from_static(value));
        }
        response
    }
}

pub fn pretty(value: &serde_json::Value) -> Vec<u8> {
    use serde::Serialize;
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // a Value has no key that is not a string and the Vec takes everything: this can't fail
    let _ = value.serialize(&mut serializer);
    out.push(b'\n');
    out
}

/// Makes one step at a time, and lets other tasks run between two.
pub struct PageBody {
    page: Option<Page>,
    yielded: bool,
}

impl Body for PageBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        match this.page.take() {
            None => Poll::Ready(None),
            Some(Page::Whole(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Page::Steps(step)) if !this.yielded => {
                this.yielded = true;
                this.page = Some(Page::Steps(step));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Page::Steps(mut step)) => {
                this.yielded = false;
                let mut out = Vec::new();
                if step(&mut out) {
                    this.page = Some(Page::Steps(step));
                }
                Poll::Ready(Some(Ok(Frame::data(out.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.page.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.page {
            Some(Page::Whole(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Some(Page::Steps(_)) => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}
