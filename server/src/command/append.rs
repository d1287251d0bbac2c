//! `annals append`: one event, or one atomic batch.

use super::arguments::Append as Options;
use super::batch;
use crate::config::Config;
use crate::failure::Failure;
use crate::output::Output;
use annals::{Append, Appended, ExpectedVersion, NewEvent};
use serde::Serialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Most bytes that are read of a file or standard input (256 MiB): more can be no batch.
const INPUT_BYTES_MAX: u64 = 256 << 20;

/// What became of the append, in the order in which it is printed.
#[derive(Serialize)]
struct Outcome {
    position: u64,
    version: u64,
    repeated: bool,
}

/// Appends what the options say to the store that `config` gives for a directory. `is_located`: the directory was given
/// before the command, or by the environment.
pub(super) fn run(
    config: impl Fn(Option<&Path>) -> Result<Config, Failure>,
    is_located: bool,
    options: &Options,
) -> Result<(), Failure> {
    let given = sort_data(&options.data, is_located)?;
    let config = config(given.directory.as_deref())?;
    match &options.batch {
        Some(_) if given.event.is_some() => {
            Err(Failure::Usage("--batch FILE brings its own data; leave out --data JSON".to_owned()))
        }
        Some(path) => append_batch(&config, options, path),
        None => append_event(&config, options, given.event),
    }
}

fn append_event(config: &Config, options: &Options, data: Option<&str>) -> Result<(), Failure> {
    let data = data.map(load_data).transpose()?;
    let mut event = NewEvent::new(required(&options.stream)?, required(&options.event_type)?);
    if let Some(data) = &data {
        event.data = Cow::Borrowed(checked_json("--data", data)?.as_bytes());
    }
    if let Some(metadata) = &options.metadata {
        event.metadata = Cow::Borrowed(checked_json("--metadata", metadata.as_bytes())?.as_bytes());
    }
    event.tags = options.tag.iter().map(Into::into).collect();
    event.id = options.id;
    let mut append = Append::from(event);
    if options.expect != ExpectedVersion::Any {
        append = append.expect(required(&options.stream)?, options.expect);
    }
    append_and_print(config, options, append)
}

fn append_batch(config: &Config, options: &Options, path: &Path) -> Result<(), Failure> {
    let text = load(path)?;
    append_and_print(config, options, batch::parse(&text)?)
}

fn append_and_print(config: &Config, options: &Options, append: Append<'_>) -> Result<(), Failure> {
    // Before the store is opened, and so perhaps created, for nothing.
    append.validate()?;
    let store = config.open_for_writing(&options.tuning)?;
    let appended = store.append_and_wait(append)?;
    // Told before closing: the events are durable, whatever closing may meet.
    print(config.json, &appended)?;
    store.close()
}

/// Prints position and version of the last event.
fn print(json: bool, appended: &Appended) -> Result<(), Failure> {
    let position = appended.positions.end.get().saturating_sub(1);
    let outcome = Outcome { position, version: appended.last_version.get(), repeated: appended.repeated };
    let mut output = Output::open();
    let printed = if json {
        output.json_line(&outcome)
    } else {
        output.write(|out| {
            let again = if outcome.repeated { " (it was there already)" } else { "" };
            writeln!(out, "position {}, version {}{again}", outcome.position, outcome.version)
        })
    };
    output.finish(printed)
}

/// The parser sees to it that these are there unless there is a batch.
fn required(option: &Option<String>) -> Result<&str, Failure> {
    option.as_deref().ok_or_else(|| Failure::Usage("a stream and a --type are needed".to_owned()))
}

/// The values of `--data`, told apart: one may be the event's data and one the store's directory.
#[derive(PartialEq, Eq, Debug)]
struct Given<'a> {
    event: Option<&'a str>,
    directory: Option<PathBuf>,
}

/// JSON text never begins with `/` or `.`, so such a value can only be a directory; and so is the
/// name of an existing one that is not JSON too. But one value alone is no directory where that is known already
/// (`is_located`), or where it would make a new store: it may be a file's name without its @.
fn sort_data(values: &[String], is_located: bool) -> Result<Given<'_>, Failure> {
    let mut given = Given { event: None, directory: None };
    for value in values {
        let is_event = value == "-" || value.starts_with('@') || is_json(value);
        let is_directory = !is_event && (value.starts_with(['/', '.']) || Path::new(value).is_dir());
        let is_second = if is_directory {
            given.directory.replace(PathBuf::from(value)).is_some()
        } else {
            given.event.replace(value).is_some()
        };
        if is_second {
            return Err(Failure::Usage(
                "--data is there twice; give the store's directory as in: annals --data DIR append …"
                    .to_owned(),
            ));
        }
    }
    if let Some(directory) = given.directory.as_deref()
        && given.event.is_none()
        && (is_located || !directory.is_dir())
    {
        return Err(Failure::Usage(format!(
            "--data {} is not JSON; give the name of a file with the event's data as @FILE, and the store's directory as in: \
             annals --data DIR append …",
            directory.display()
        )));
    }
    Ok(given)
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// The event's data: the value itself, or the content of the file that it names.
fn load_data(value: &str) -> Result<Cow<'_, [u8]>, Failure> {
    match value.strip_prefix('@') {
        Some(path) => load(Path::new(path)).map(Cow::Owned),
        None if value == "-" => load(Path::new(value)).map(Cow::Owned),
        None => Ok(Cow::Borrowed(value.as_bytes())),
    }
}

/// The content of a file, `-` being standard input.
fn load(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(INPUT_BYTES_MAX + 1).read_to_end(&mut content)
    } else {
        File::open(path).and_then(|file| file.take(INPUT_BYTES_MAX + 1).read_to_end(&mut content))
    };
    let count = read.map_err(|source| Failure::io("read", path, source))?;
    if count as u64 > INPUT_BYTES_MAX {
        return Err(Failure::Usage(format!("{} is larger than {INPUT_BYTES_MAX} bytes", path.display())));
    }
    Ok(content)
}

/// The JSON text, byte for byte, without the whitespace around it (a file's last line break).
fn checked_json<'a>(option: &str, bytes: &'a [u8]) -> Result<&'a str, Failure> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Failure::Usage(format!("the JSON of {option} is not UTF-8: {error}")))?;
    let value: &RawValue = serde_json::from_str(text)
        .map_err(|error| Failure::Usage(format!("what {option} gives is not JSON: {error}")))?;
    Ok(value.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(values: &[&str]) -> Result<(Option<String>, Option<PathBuf>), Failure> {
        let values: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
        let given = sort_data(&values, false)?;
        Ok((given.event.map(str::to_owned), given.directory))
    }

    #[test]
    fn event_data_and_directories_are_told_apart() {
        let event = |text: &str| Some(text.to_owned());
        assert_eq!(sorted(&[]).unwrap(), (None, None));
        assert_eq!(sorted(&["{}"]).unwrap(), (event("{}"), None));
        assert_eq!(sorted(&["@file"]).unwrap(), (event("@file"), None));
        assert_eq!(sorted(&["-"]).unwrap(), (event("-"), None));
        assert_eq!(sorted(&["-5"]).unwrap(), (event("-5"), None));
        assert_eq!(sorted(&["/"]).unwrap(), (None, Some("/".into())));
        assert!(sorted(&["./event-without-its-sign.json"]).is_err());
        let given = ["{}".to_owned(), "/".to_owned()];
        assert_eq!(sort_data(&given, true).unwrap().directory, Some("/".into()));
        assert_eq!(sort_data(&given[..1], true).unwrap().event, Some("{}"));
        assert!(sort_data(&given[1..], true).is_err());
        assert_eq!(sorted(&["{}", "./x"]).unwrap(), (event("{}"), Some("./x".into())));
        assert_eq!(sorted(&["/x", "{}"]).unwrap(), (event("{}"), Some("/x".into())));
    }

    #[test]
    fn broken_json_is_never_a_directory() {
        assert_eq!(sorted(&["{bad"]).unwrap(), (Some("{bad".to_owned()), None));
        assert!(sorted(&["{}", "{}"]).is_err());
        assert!(sorted(&["/a", "/b"]).is_err());
    }

    #[test]
    fn json_is_checked_and_kept_byte_for_byte() {
        assert_eq!(
            checked_json("--data", b" {\"a\" : 1.00,\n \"a\":2}\n").unwrap(),
            "{\"a\" : 1.00,\n \"a\":2}"
        );
        for bad in [&b"{bad"[..], b"", b"1 2", b"\"\xff\""] {
            assert!(matches!(checked_json("--data", bad), Err(Failure::Usage(_))));
        }
    }
}
