//! The lines of a file, plain or compressed, read and split on a thread of their own.
//!
//! Lines arrive in chunks of whole lines, so that what is made of a chunk's lines can borrow from
//! it. What is made of a chunk is made on that thread, too. At most [`CHUNKS_WAITING_MAX`] chunks wait
//! for the reader, so memory does not grow with the file.

use crate::failure::Failure;
use annals::limits;
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest line, in bytes (64 MiB): the largest event as base64 with generous whitespace.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 20;
/// Most bytes in a chunk of several lines (48 MiB). What a line's event takes encoded is about its
/// length, and up to about 100 bytes more where the line is short, so a chunk always fits one batch.
const CHUNK_BYTES_MAX: usize = 48 << 20;
/// A chunk is sent once it has this many bytes (256 KiB): enough that hand-overs cost nothing.
const CHUNK_BYTES_GOAL: usize = 256 << 10;
/// A chunk is sent, too, once it has this many lines: what is made of a short line may be much larger.
const CHUNK_LINES_GOAL: usize = 10_000;
/// Chunks that wait between the two threads.
const CHUNKS_WAITING_MAX: usize = 4;
/// Buffer for the file itself, and for what comes out of decompression.
const READ_BUFFER_BYTES: usize = 128 << 10;

/// Room for what encoding adds to each of the shortest lines.
const ENCODED_EXTRA_BYTES: usize = 256;
const _: () = assert!(
    CHUNK_BYTES_MAX + limits::BATCH_EVENTS_MAX * ENCODED_EXTRA_BYTES < limits::BATCH_BYTES_MAX,
    "a chunk with the most lines of a batch fits one batch"
);
const _: () = assert!(limits::DATA_BYTES_MAX / 3 * 4 < LINE_BYTES_MAX);

/// Whole lines, in one piece.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    first_line: u64,
}

impl Chunk {
    /// The lines with their numbers in the file, from 1, without their line breaks (`\n` or `\r\n`).
    pub(crate) fn lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let lines = starts.zip(&self.ends).map(|(start, &end)| without_break(&self.bytes[start..end]));
        (self.first_line..).zip(lines)
    }
}

fn without_break(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// What came of waiting for a chunk.
#[derive(Debug)]
pub(crate) enum Received<T> {
    /// What was made of the next lines.
    Chunk(T),
    /// Nothing yet.
    Nothing,
    /// There are no more lines.
    End,
}

/// The lines of one file, being read, and a `T` being made of each chunk.
#[derive(Debug)]
pub(crate) struct Lines<T> {
    chunks: Receiver<Result<T, Failure>>,
    thread: Option<JoinHandle<()>>,
    bytes_read: Arc<AtomicU64>,
    bytes_total: Option<u64>,
}

impl<T: Send + 'static> Lines<T> {
    /// Opens a file, `-` being standard input, and begins to read it and to `make` something of each
    /// chunk. Chunks hold a multiple of `lines_multiple` lines, except where that would be too many
    /// bytes, and at the end.
    pub(crate) fn open(path: &Path, lines_multiple: usize, make: fn(Chunk) -> T) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            return Self::start(io::stdin(), None, "standard input".into(), lines_multiple, make);
        }
        let file = File::open(path).map_err(|source| Failure::io("open", path, source))?;
        let metadata = file.metadata().map_err(|source| Failure::io("examine", path, source))?;
        if metadata.is_dir() {
            // Reading it would fail only once the import has begun.
            return Err(Failure::io("read", path, io::ErrorKind::IsADirectory.into()));
        }
        let bytes_total = metadata.is_file().then_some(metadata.len());
        Self::start(file, bytes_total, path.to_owned(), lines_multiple, make)
    }

    fn start(
        source: impl Read + Send + 'static,
        bytes_total: Option<u64>,
        path: PathBuf,
        lines_multiple: usize,
        make: fn(Chunk) -> T,
    ) -> Result<Self, Failure> {
        let (sender, chunks) = mpsc::sync_channel(CHUNKS_WAITING_MAX);
        let bytes_read = Arc::new(AtomicU64::new(0));
        let counted = Counted { source, bytes_read: Arc::clone(&bytes_read) };
        let failed_path = path.clone();
        let thread = std::thread::Builder::new()
            .name("lines".to_owned())
            .spawn(move || {
                let outlet = Outlet { sender, make, lines_multiple };
                let outcome = decompressed(counted)
                    .map_err(|source| Failure::io("read", &path, source))
                    .and_then(|input| split(input, &path, &outlet));
                if let Err(failure) = outcome {
                    // Nobody listening means that nobody wants to know.
                    let _ = outlet.sender.send(Err(failure));
                }
            })
            .map_err(|source| Failure::io("start a thread to read", failed_path, source))?;
        Ok(Self { chunks, thread: Some(thread), bytes_read, bytes_total })
    }

    /// Waits for the next lines, but no longer than `patience`.
    pub(crate) fn receive(&mut self, patience: Duration) -> Result<Received<T>, Failure> {
        match self.chunks.recv_timeout(patience) {
            Ok(chunk) => chunk.map(Received::Chunk),
            Err(RecvTimeoutError::Timeout) => Ok(Received::Nothing),
            Err(RecvTimeoutError::Disconnected) => {
                // A panic must not pass for the end of the file.
                if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
                    std::panic::resume_unwind(panic);
                }
                Ok(Received::End)
            }
        }
    }

    /// Bytes of the file read so far, and all there are where that is known.
    pub(crate) fn progress(&self) -> (u64, Option<u64>) {
        (self.bytes_read.load(Ordering::Relaxed), self.bytes_total)
    }
}

/// Counts what is read through it.
struct Counted<R> {
    source: R,
    bytes_read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// The same bytes, decompressed where their beginning says that they are gzip or zstd.
fn decompressed(mut source: impl Read + 'static) -> io::Result<Box<dyn BufRead>> {
    const MAGIC_LEN: u64 = 4;
    let mut magic = Vec::new();
    source.by_ref().take(MAGIC_LEN).read_to_end(&mut magic)?;
    let is_gzip = magic.starts_with(&[0x1f, 0x8b]);
    let is_zstd = is_zstd_magic(&magic);
    let whole = BufReader::with_capacity(READ_BUFFER_BYTES, Cursor::new(magic).chain(source));
    Ok(if is_gzip {
        Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, MultiGzDecoder::new(whole)))
    } else if is_zstd {
        let decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
        Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, decoder))
    } else {
        Box::new(whole)
    })
}

/// A zstd frame, or a skippable frame that may come before one.
fn is_zstd_magic(magic: &[u8]) -> bool {
    match magic {
        [0x28, 0xb5, 0x2f, 0xfd] => true,
        [first, 0x2a, 0x4d, 0x18] => first & 0xf0 == 0x50,
        _ => false,
    }
}

/// Where the thread that reads sends what it makes of chunks.
struct Outlet<T> {
    sender: SyncSender<Result<T, Failure>>,
    make: fn(Chunk) -> T,
    lines_multiple: usize,
}

/// Splits the input into chunks of whole lines and sends them. Ends early, without an error, when
/// nobody receives them any more.
fn split<T>(mut input: Box<dyn BufRead>, path: &Path, outlet: &Outlet<T>) -> Result<(), Failure> {
    let mut chunk = Chunk { first_line: 1, ..Chunk::default() };
    loop {
        let start = chunk.bytes.len();
        let outcome = read_line(&mut *input, &mut chunk.bytes);
        let number = chunk.first_line + chunk.ends.len() as u64;
        let failure = match outcome {
            Ok(0) => None,
            Ok(count) if count <= LINE_BYTES_MAX => {
                if chunk.add_line(start, outlet).is_err() {
                    return Ok(());
                }
                continue;
            }
            Ok(_) => Some(Failure::BadLine {
                line: number,
                reason: format!("it is longer than {LINE_BYTES_MAX} bytes"),
            }),
            Err(source) => Some(Failure::io("read", path, source)),
        };
        // The whole lines before a failure still count.
        chunk.bytes.truncate(start);
        if chunk.send(Vec::new(), outlet).is_err() {
            return Ok(());
        }
        return failure.map_or(Ok(()), Err);
    }
}

/// Appends the next line with its break to `bytes`; gives its length, one more than the longest
/// allowed where it is too long.
fn read_line(input: &mut dyn BufRead, bytes: &mut Vec<u8>) -> io::Result<usize> {
    input.take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', bytes)
}

/// Nobody receives chunks any more.
struct Unwanted;

impl Chunk {
    /// Counts the line that begins at `start` as one of this chunk, and sends what is ready.
    fn add_line<T>(&mut self, start: usize, outlet: &Outlet<T>) -> Result<(), Unwanted> {
        if self.bytes.len() > CHUNK_BYTES_MAX {
            let line = self.bytes.split_off(start);
            self.send(line, outlet)?;
        }
        self.ends.push(self.bytes.len());
        let is_enough = self.bytes.len() >= CHUNK_BYTES_GOAL || self.ends.len() >= CHUNK_LINES_GOAL;
        if is_enough && self.ends.len().is_multiple_of(outlet.lines_multiple) {
            self.send(Vec::new(), outlet)?;
        }
        Ok(())
    }

    /// Sends the lines of this chunk and becomes the one after it, which begins with `bytes`.
    fn send<T>(&mut self, bytes: Vec<u8>, outlet: &Outlet<T>) -> Result<(), Unwanted> {
        let next = Self { bytes, ends: Vec::new(), first_line: self.first_line + self.ends.len() as u64 };
        let full = std::mem::replace(self, next);
        if full.ends.is_empty() {
            return Ok(());
        }
        // The next chunk will be about as large: growing it step by step would copy it several times.
        self.bytes.reserve(full.bytes.len().min(2 * CHUNK_BYTES_GOAL));
        outlet.sender.send(Ok((outlet.make)(full))).map_err(|_| Unwanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// The lines of one chunk, with their numbers.
    type Numbered = Vec<(u64, Vec<u8>)>;

    fn read(bytes: Vec<u8>, lines_multiple: usize) -> Result<Vec<Numbered>, Failure> {
        let mut lines =
            Lines::start(Cursor::new(bytes), None, "test".into(), lines_multiple, std::convert::identity)?;
        let mut chunks = Vec::new();
        while let Received::Chunk(chunk) = lines.receive(PATIENCE)? {
            chunks.push(chunk.lines().map(|(number, line)| (number, line.to_vec())).collect());
        }
        Ok(chunks)
    }

    fn flat(bytes: &[u8]) -> Vec<(u64, String)> {
        let chunks = read(bytes.to_vec(), 1000).unwrap();
        let text = |line| String::from_utf8(line).unwrap();
        chunks.into_iter().flatten().map(|(number, line)| (number, text(line))).collect()
    }

    fn numbered(lines: &[&str]) -> Vec<(u64, String)> {
        (1..).zip(lines.iter().map(|&line| line.to_owned())).collect()
    }

    #[test]
    fn lines_end_with_either_break_or_the_file() {
        assert_eq!(flat(b"a\nbc\r\n\nd"), numbered(&["a", "bc", "", "d"]));
        assert_eq!(flat(b"a\n"), numbered(&["a"]));
        assert_eq!(flat(b""), numbered(&[]));
        assert_eq!(flat(b"\n"), numbered(&[""]));
    }

    #[test]
    fn compressed_files_are_told_by_their_content() {
        let text = b"a\nb\n";
        let gzip = || {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = || zstd::encode_all(&text[..], 1).unwrap();
        assert_eq!(flat(&gzip()), numbered(&["a", "b"]));
        assert_eq!(flat(&zstd()), numbered(&["a", "b"]));
        assert_eq!(flat(&[gzip(), gzip()].concat()), numbered(&["a", "b", "a", "b"]));
        assert_eq!(flat(&[zstd(), zstd()].concat()), numbered(&["a", "b", "a", "b"]));
    }

    #[test]
    fn a_cut_file_gives_its_lines_and_then_the_error() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        encoder.write_all(b"a\nb\nc").unwrap();
        let mut bytes = encoder.finish().unwrap();
        bytes.truncate(bytes.len() - 9);
        let mut lines =
            Lines::start(Cursor::new(bytes), None, "test".into(), 1000, std::convert::identity).unwrap();
        let Ok(Received::Chunk(chunk)) = lines.receive(PATIENCE) else { panic!("no chunk") };
        assert_eq!(chunk.lines().collect::<Vec<_>>(), [(1, &b"a"[..]), (2, &b"b"[..])]);
        assert!(matches!(lines.receive(PATIENCE), Err(Failure::Io(_))));
    }

    #[test]
    fn chunks_hold_a_multiple_of_the_lines_asked_for() {
        let line = vec![b'x'; 1023];
        let bytes: Vec<u8> = (0..2000).flat_map(|_| [&line[..], b"\n"].concat()).collect();
        let chunks = read(bytes, 7).unwrap();
        assert!(chunks.len() > 2);
        for chunk in &chunks[..chunks.len() - 1] {
            assert_eq!(chunk.len() % 7, 0);
        }
        let numbers: Vec<u64> = chunks.iter().flatten().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (1..=2000).collect::<Vec<u64>>());
    }

    #[test]
    fn chunks_of_long_lines_are_cut() {
        let mut bytes = Vec::new();
        for length in [30 << 20, 30 << 20, 5, 50 << 20, 5] {
            bytes.resize(bytes.len() + length, b'x');
            bytes.push(b'\n');
        }
        let chunks = read(bytes, 1000).unwrap();
        let lengths: Vec<Vec<usize>> =
            chunks.iter().map(|chunk| chunk.iter().map(|(_, line)| line.len()).collect()).collect();
        assert_eq!(lengths, [vec![30 << 20], vec![30 << 20, 5], vec![50 << 20], vec![5]]);
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let mut bytes = b"a\n".to_vec();
        bytes.resize(LINE_BYTES_MAX + 10, b'x');
        let failure = read(bytes, 1000).unwrap_err();
        assert!(matches!(failure, Failure::BadLine { line: 2, .. }), "{failure}");
    }
}
