//! Who may do what: tokens, of which a file holds the hashes.
//!
//! A token is 32 random bytes, so that its hash tells nothing of it, however fast that is worked out. It is shown once, when it is
//! made. The file is a line of JSON for each, and can be edited by hand; the server looks at it anew when it has changed.

use annals_protocol::Failure;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How often the file is looked at, and how often connections look whether their tokens are there still: within a second
/// together.
pub(crate) const LOOK_PERIOD: Duration = Duration::from_millis(450);
/// How often it is looked at for one who is not known.
const RELOOK_PERIOD: Duration = Duration::from_millis(20);
/// What a token begins with, so that one that has leaked is known for what it is.
pub(crate) const PREFIX: &str = "annals_";

/// What a token allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Right {
    /// To read events, and be a member of durable subscriptions.
    Read,
    /// To append events and write snapshots.
    Append,
    /// To administer subscriptions and stores, and all else.
    Admin,
}

/// A right, and where it holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grant {
    pub(crate) right: Right,
    /// `None`: in all stores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<String>,
    /// `None`: for all streams, and what is not about streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) prefix: Option<String>,
}

/// A line of the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    pub(crate) name: String,
    /// SHA-256 of the token, in hexadecimal.
    hash: String,
    pub(crate) grants: Vec<Grant>,
}

impl Token {
    /// A new token: what is kept of it, and itself.
    pub(crate) fn new(name: String, grants: Vec<Grant>) -> (Self, String) {
        let secret: [u8; 32] = rand::random();
        let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
        (Self { name, hash: hash(&secret), grants }, secret)
    }

    /// Whether it allows this to a stream, or, without one, to all of a store.
    pub(crate) fn allows(&self, right: Right, store: &str, stream: Option<&str>) -> bool {
        self.grants.iter().any(|grant| {
            let is_there = grant.store.as_ref().is_none_or(|granted| granted == store);
            let is_of_it = match (&grant.prefix, stream) {
                (None, _) => true,
                (Some(prefix), Some(stream)) => stream.starts_with(prefix.as_str()),
                (Some(_), None) => false,
            };
            is_there && is_of_it && (grant.right == right || grant.right == Right::Admin)
        })
    }

    /// Whether it allows anything there.
    pub(crate) fn is_for(&self, store: &str) -> bool {
        self.grants.iter().any(|grant| grant.store.as_ref().is_none_or(|granted| granted == store))
    }
}

fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether two hashes are the same, in a time that does not tell where they differ.
fn is_same(one: &str, other: &str) -> bool {
    let differs = one.bytes().zip(other.bytes()).fold(0, |differs, (one, other)| differs | (one ^ other));
    one.len() == other.len() && std::hint::black_box(differs) == 0
}

/// Where the tokens are that are for the stores in `data`, unless something else is said: beside it, as what is in it is stores'.
pub(crate) fn default_path(data: &Path) -> PathBuf {
    let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    // Its parts alone: with a slash at its end, it would be in it.
    let mut name = absolute.components().collect::<PathBuf>().into_os_string();
    name.push(".tokens");
    name.into()
}

/// Reads the tokens of a file; none where there is no file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Token>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let token = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| io::Error::other(format!("line {}: {error}", number + 1)))
    };
    lines.map(token).collect()
}

/// Replaces the file, for its owner alone to read.
pub(crate) fn write(path: &Path, tokens: &[Token]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    // Whoever changes it may be another than who reads it.
    if let Ok(before) = fs::metadata(path) {
        file.set_permissions(before.permissions())?;
        std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
    }
    for token in tokens {
        serde_json::to_writer(&mut file, token)?;
        file.write_all(b"\n")?;
    }
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Keeps others from changing the file meanwhile: whoever changes it holds this from reading to writing.
pub(crate) fn lock(path: &Path) -> io::Result<fs::File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(name)?;
    file.lock()?;
    Ok(file)
}

/// The tokens of a file, as it is now.
#[derive(Debug)]
pub(crate) struct Tokens {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    tokens: Arc<Vec<Token>>,
    file: Option<Seen>,
    looked: Instant,
}

/// What tells one content of the file from another: when it was changed, which file it is, and its length.
type Seen = (SystemTime, u64, u64);

fn seen(path: &Path) -> io::Result<Seen> {
    let file = fs::metadata(path)?;
    Ok((file.modified()?, file.ino(), file.len()))
}

impl Tokens {
    /// Reads the file, which must be there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = Some(seen(path)?);
        let known = Known { tokens: Arc::new(read(path)?), file, looked: now() };
        Ok(Self { path: path.to_owned(), known: Mutex::new(known) })
    }

    /// All, at most so old. A file that cannot be read any more allows what it did.
    fn now(&self, age: Duration) -> Arc<Vec<Token>> {
        let mut known = self.known.lock();
        if known.looked.elapsed() >= age {
            known.looked = now();
            let file = seen(&self.path).ok();
            if file != known.file {
                let path = self.path.display();
                match read(&self.path) {
                    Ok(tokens) => {
                        if file.is_none() {
                            tracing::error!(%path, "the file of tokens is gone: nobody is let in");
                        } else {
                            tracing::info!(%path, count = tokens.len(), "tokens were changed");
                        }
                        known.tokens = Arc::new(tokens);
                    }
                    Err(error) => {
                        tracing::error!(path = %self.path.display(), %error, "tokens that were changed cannot be read");
                    }
                }
                // Told once for each change.
                known.file = file;
            }
        }
        Arc::clone(&known.tokens)
    }

    /// What is known of whoever has this token.
    pub(crate) fn identify(&self, secret: Option<&str>) -> Result<Token, Failure> {
        let given = hash(secret.unwrap_or_default());
        // One that was just made is known.
        [LOOK_PERIOD, RELOOK_PERIOD]
            .into_iter()
            .find_map(|age| self.find(&given, age))
            .ok_or(Failure::Unauthenticated)
    }

    fn find(&self, given: &str, age: Duration) -> Option<Token> {
        let tokens = self.now(age);
        // All are looked at, whichever it is.
        let mut found = None;
        for token in tokens.iter() {
            if is_same(&token.hash, given) {
                found = Some(token);
            }
        }
        found.cloned()
    }

    /// Whether the token is there still, and allows what it did.
    pub(crate) fn check(&self, token: &Token) -> Result<(), Failure> {
        if self.now(LOOK_PERIOD).iter().any(|known| known == token) {
            Ok(())
        } else {
            Err(Failure::Unauthenticated)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how long ago the file was looked at")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(right: Right, store: Option<&str>, prefix: Option<&str>) -> Grant {
        Grant { right, store: store.map(str::to_owned), prefix: prefix.map(str::to_owned) }
    }

    #[test]
    fn a_token_allows_what_it_was_given_where_it_was_given() {
        let grants =
            vec![grant(Right::Append, Some("a"), Some("order-")), grant(Right::Read, Some("b"), None)];
        let (token, _) = Token::new("billing".to_owned(), grants);
        assert!(
            token.allows(Right::Append, "a", Some("order-42"))
                && !token.allows(Right::Append, "a", Some("user-1"))
        );
        assert!(!token.allows(Right::Append, "a", None) && !token.allows(Right::Read, "a", Some("order-42")));
        assert!(token.allows(Right::Read, "b", None) && token.allows(Right::Read, "b", Some("any")));
        assert!(
            !token.allows(Right::Append, "b", Some("order-42")) && !token.allows(Right::Admin, "b", None)
        );
        assert!(token.is_for("a") && token.is_for("b") && !token.is_for("c"));
        let (admin, _) = Token::new("root".to_owned(), vec![grant(Right::Admin, None, None)]);
        assert!(admin.allows(Right::Append, "c", None) && admin.allows(Right::Admin, "c", None));
    }

    #[test]
    fn what_is_written_is_read_and_a_revoked_token_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        assert!(read(&path).unwrap().is_empty() && Tokens::open(&path).is_err());
        for data in ["/srv/annals", "/srv/annals/", "/srv/./annals"] {
            assert_eq!(default_path(Path::new(data)), Path::new("/srv/annals.tokens"));
        }
        let (one, secret) = Token::new("one".to_owned(), vec![grant(Right::Read, None, None)]);
        let (two, _) = Token::new("two".to_owned(), vec![grant(Right::Admin, None, Some("x"))]);
        write(&path, &[one.clone(), two.clone()]).unwrap();
        assert_eq!(read(&path).unwrap(), [one.clone(), two.clone()]);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(secret.trim_start_matches(PREFIX)), "it is not in the file");
        let tokens = Tokens::open(&path).unwrap();
        assert_eq!(tokens.identify(Some(&secret)).unwrap(), one);
        for wrong in [None, Some(""), Some("annals_x"), Some(&secret[1..])] {
            assert!(matches!(tokens.identify(wrong), Err(Failure::Unauthenticated)));
        }
        std::thread::sleep(Duration::from_millis(20));
        write(&path, std::slice::from_ref(&two)).unwrap();
        std::thread::sleep(LOOK_PERIOD + Duration::from_millis(100));
        assert!(tokens.check(&one).is_err() && tokens.check(&two).is_ok());
        assert!(tokens.identify(Some(&secret)).is_err());
        fs::write(&path, "{\"name\":1}\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().starts_with("line 1: "));
    }
}
