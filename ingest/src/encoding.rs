//! Compressed bodies and files, read as what they hold.

use std::{path::Path, pin::Pin};

use async_compression::{
    tokio::bufread::{GzipDecoder, ZstdDecoder},
    zstd::DParameter,
};
use tokio::io::{AsyncBufRead, AsyncRead};

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// What is read from, whatever it comes from.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;

impl Encoding {
    /// The names of `Content-Encoding` that are understood.
    pub const NAMES: &'static str = "gzip, zstd, identity";

    /// Of a `Content-Encoding`; `None` when it is none of [`Self::NAMES`].
    #[must_use]
    pub fn of_header(value: &str) -> Option<Self> {
        match value.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Self::Identity),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Of a file, by its name: `.gz`, `.zst`.
    #[must_use]
    pub fn of_file(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz" | "gzip") => Self::Gzip,
            Some("zst" | "zstd") => Self::Zstd,
            _ => Self::Identity,
        }
    }

    /// A reader of what `input` holds. What was appended to one another is read to the end. Memory is bounded: of zstd,
    /// only windows of 8 MB are read, which all of its usual levels keep to (RFC 8878 § 3.1.1.1.2).
    #[must_use]
    pub fn decode(self, input: impl AsyncBufRead + Send + 'static) -> Reader {
        /// 2^23 bytes.
        const WINDOW_LOG: u32 = 23;
        match self {
            Self::Identity => Box::pin(input),
            Self::Gzip => {
                let mut decoder = GzipDecoder::new(input);
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
            Self::Zstd => {
                let mut decoder = ZstdDecoder::with_params(input, &[DParameter::window_log_max(WINDOW_LOG)]);
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
        }
    }
}
