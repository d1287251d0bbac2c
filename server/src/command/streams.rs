//! `annals streams`: every stream with its head.

use super::arguments::Streams;
use crate::config::Config;
use crate::failure::Failure;
use crate::output::Output;
use serde::Serialize;
use std::io::Write;

/// One line of the list.
#[derive(Serialize)]
struct Line<'a> {
    stream: &'a str,
    head: u64,
}

/// Prints the streams, in no particular order.
pub(super) fn run(config: &Config, options: &Streams) -> Result<(), Failure> {
    let store = config.open_for_reading()?;
    let mut output = Output::open();
    let printed = store.each_stream(|stream, head| {
        if !is_wanted(stream, options) {
            return Ok(());
        }
        print(&mut output, &Line { stream, head: head.version.get() }, config.json)
    });
    output.finish(printed)
}

fn is_wanted(stream: &str, options: &Streams) -> bool {
    options.category.as_deref().is_none_or(|category| annals::category(stream) == category)
        && options.prefix.as_deref().is_none_or(|prefix| stream.starts_with(prefix))
}

fn print(output: &mut Output, line: &Line<'_>, json: bool) -> Result<(), Failure> {
    if json {
        return output.json_line(line);
    }
    output.write(|out| writeln!(out, "{:>8}  {}", line.head, line.stream))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::arguments::Directory;

    #[test]
    fn a_category_is_whole_and_a_prefix_is_not() {
        let options = |category: Option<&str>, prefix: Option<&str>| Streams {
            directory: Directory::default(),
            category: category.map(str::to_owned),
            prefix: prefix.map(str::to_owned),
        };
        assert!(is_wanted("order-42", &options(None, None)));
        assert!(is_wanted("order-42", &options(Some("order"), Some("order-4"))));
        assert!(!is_wanted("order-42", &options(Some("ord"), None)));
        assert!(!is_wanted("order-42", &options(Some("order"), Some("order-5"))));
    }
}
