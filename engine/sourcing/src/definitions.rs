//! Definitions of a process: several versions side by side. A case goes by the one under whose key it began, until an event moves it to another one.

use std::collections::BTreeMap;
use std::fmt;
use thiserror::Error;

/// Definitions, each under a key of a name and a version: `domestic-1.0`.
///
/// A case keeps the key in its events, never the definition: so a running case goes on as it began, whatever new ones begin by. A
/// definition stays as long as a case goes by it. Where one is missing all the same, let [`Decider::cannot_judge`](crate::Decider::cannot_judge) say so of the
/// refusal, and what the case hears waits until it is back.
///
/// ```
/// use annals_sourcing::Definitions;
///
/// let definitions = Definitions::new("domestic-1.0", 3).with("domestic-2.0", 2).with("international-1.0", 5);
/// assert_eq!(definitions.get("domestic-2.0"), Ok(&2));
/// // What new cases of that name begin by: the first one that was given, or what is said.
/// assert_eq!(definitions.current("domestic"), Ok(("domestic-1.0", &3)));
/// assert_eq!(definitions.beginning_by("domestic-2.0").current("domestic"), Ok(("domestic-2.0", &2)));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Definitions<D> {
    by_key: BTreeMap<String, D>,
    /// Keys that new cases begin by, by name.
    current: BTreeMap<String, String>,
}

/// There is no such definition; perhaps it was taken out while a case went by it.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("there is no definition {wanted:?}, only {}; put it back as long as a case goes by it", Listed(.known))]
pub struct NoDefinition {
    /// The key or name that was asked for.
    pub wanted: String,
    /// The keys that there are.
    pub known: Vec<String>,
}

struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl<D> Definitions<D> {
    /// One definition.
    ///
    /// # Panics
    /// See [`Definitions::with`].
    pub fn new(key: impl Into<String>, definition: D) -> Self {
        Self { by_key: BTreeMap::new(), current: BTreeMap::new() }.with(key, definition)
    }

    /// One more. New cases begin by the first one of their name.
    ///
    /// # Panics
    /// The key is no name and version with a `-` between them, the first one that a digit follows, or was given before: a mistake of the program that it shows as soon as it
    /// starts.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, definition: D) -> Self {
        let key = key.into();
        let name =
            name_of(&key).unwrap_or_else(|| panic!("{key:?} is no key of a definition, as domestic-1.0 is"));
        self.current.entry(name.to_owned()).or_insert_with(|| key.clone());
        let other = self.by_key.insert(key.clone(), definition);
        assert!(other.is_none(), "there are two definitions {key:?}");
        self
    }

    /// Has new cases begin by this one.
    ///
    /// # Panics
    /// There is none of that key.
    #[must_use]
    pub fn beginning_by(mut self, key: &str) -> Self {
        let name = name_of(key).filter(|_| self.by_key.contains_key(key));
        let name = name.unwrap_or_else(|| panic!("there is no definition {key:?} to begin by"));
        self.current.insert(name.to_owned(), key.to_owned());
        self
    }

    /// The definition that a case goes by.
    ///
    /// # Errors
    /// There is none of that key.
    pub fn get(&self, key: &str) -> Result<&D, NoDefinition> {
        self.by_key.get(key).ok_or_else(|| self.without(key))
    }

    /// What a new case of that name begins by: the key that it keeps, and the definition.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn current(&self, name: &str) -> Result<(&str, &D), NoDefinition> {
        let found = self.current.get(name).and_then(|key| self.by_key.get_key_value(key));
        found.map(|(key, definition)| (key.as_str(), definition)).ok_or_else(|| self.without(name))
    }

    /// All keys, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.by_key.keys().map(String::as_str)
    }

    fn without(&self, wanted: &str) -> NoDefinition {
        NoDefinition { wanted: wanted.to_owned(), known: self.by_key.keys().cloned().collect() }
    }
}

/// What stands before the version, which begins with a digit behind a `-`.
fn name_of(key: &str) -> Option<&str> {
    let begins = |at: &usize| key[at + 1..].starts_with(|first: char| first.is_ascii_digit());
    let at = key.match_indices('-').map(|(at, _)| at).find(begins)?;
    (at > 0).then(|| &key[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_cases_begin_by_the_one_that_is_said_and_others_stay() {
        let both = Definitions::new("by-sea-1.0", 1).with("by-sea-1.1-beta", 2);
        assert_eq!(both.current("by-sea"), Ok(("by-sea-1.0", &1)));
        let moved = both.beginning_by("by-sea-1.1-beta");
        assert_eq!((moved.current("by-sea"), moved.get("by-sea-1.0")), (Ok(("by-sea-1.1-beta", &2)), Ok(&1)));
        assert_eq!(moved.keys().collect::<Vec<_>>(), ["by-sea-1.0", "by-sea-1.1-beta"]);
    }

    #[test]
    fn one_that_is_not_there_is_told_with_those_that_are() {
        let one = Definitions::new("domestic-2.0", ());
        let told = one.get("domestic-1.0").unwrap_err().to_string();
        assert_eq!(
            told,
            "there is no definition \"domestic-1.0\", only domestic-2.0; put it back as long as a case goes by it"
        );
        assert!(one.current("international").is_err());
    }

    #[test]
    #[should_panic(expected = "two definitions")]
    fn a_key_is_given_once() {
        let _ = Definitions::new("a-1", ()).with("a-1", ());
    }

    #[test]
    #[should_panic(expected = "no key of a definition")]
    fn a_key_has_a_version() {
        let _ = Definitions::new("domestic", ());
    }
}
