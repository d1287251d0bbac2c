//! The tree of directories: which names the cache has, which the device, and the changes between them.

use super::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

/// A file, whatever it is called.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct FileId(pub(super) u64);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct DirectoryId(u64);

const ROOT: DirectoryId = DirectoryId(0);

/// All directories. Files alone are renamed, so it stays a tree; one that is removed has no name any more.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    directories: BTreeMap<DirectoryId, Directory>,
    directory_next: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    File(FileId),
    Directory(DirectoryId),
}

type Names = BTreeMap<String, Entry>;

#[derive(Clone, Default, Debug)]
struct Directory {
    durable: Names,
    cached: Names,
    /// In their order.
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Link { name: String, entry: Entry },
    Unlink { name: String },
    Rename { from: String, to: String, entry: Entry },
}

impl Change {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Link { name, entry } => {
                names.insert(name.clone(), *entry);
            }
            Self::Unlink { name } => {
                names.remove(name);
            }
            Self::Rename { from, to, entry } => {
                names.remove(from);
                names.insert(to.clone(), *entry);
            }
        }
    }
}

impl Directory {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.cached);
        self.unsynced.push(change);
    }

    /// Makes the first `count` unsynced changes durable.
    fn settle(&mut self, count: usize) {
        for change in self.unsynced.drain(..count) {
            change.apply(&mut self.durable);
        }
    }
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { directories: BTreeMap::from([(ROOT, Directory::default())]), directory_next: 1 }
    }

    fn directory(&self, id: DirectoryId) -> &Directory {
        self.directories.get(&id).expect("an entry's directory exists")
    }

    fn directory_mut(&mut self, id: DirectoryId) -> &mut Directory {
        self.directories.get_mut(&id).expect("an entry's directory exists")
    }

    fn find(&self, path: &Path) -> io::Result<Entry> {
        components(path).iter().try_fold(Entry::Directory(ROOT), |entry, name| match entry {
            Entry::File(_) => Err(ErrorKind::NotADirectory.into()),
            Entry::Directory(id) => {
                self.directory(id).cached.get(name).copied().ok_or_else(|| ErrorKind::NotFound.into())
            }
        })
    }

    pub(super) fn find_file(&self, path: &Path) -> io::Result<FileId> {
        match self.find(path)? {
            Entry::File(id) => Ok(id),
            Entry::Directory(_) => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn find_directory(&self, path: &Path) -> io::Result<DirectoryId> {
        match self.find(path)? {
            Entry::Directory(id) => Ok(id),
            Entry::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    /// The directory that a path lies in, which exists, and its last name, which may not.
    fn place(&self, path: &Path) -> io::Result<(DirectoryId, String)> {
        let path = absolute(path);
        match (path.parent(), components(&path).pop()) {
            (Some(parent), Some(name)) => Ok((self.find_directory(parent)?, name)),
            _ => Err(ErrorKind::IsADirectory.into()),
        }
    }

    /// Whether a file could be made or locked at `path`.
    pub(super) fn check_place(&self, path: &Path) -> io::Result<()> {
        self.place(path).map(drop)
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Ok(self.directory(self.find_directory(dir)?).cached.keys().cloned().collect())
    }

    /// Gives a file a name, which nothing has yet.
    pub(super) fn link(&mut self, path: &Path, file: FileId) -> io::Result<()> {
        let (directory, name) = self.place(path)?;
        self.directory_mut(directory).change(Change::Link { name, entry: Entry::File(file) });
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.find_file(path)?;
        let (directory, name) = self.place(path)?;
        self.directory_mut(directory).change(Change::Unlink { name });
        Ok(())
    }

    /// Removes a directory that holds nothing.
    pub(super) fn remove_dir(&mut self, dir: &Path) -> io::Result<()> {
        if !self.directory(self.find_directory(dir)?).cached.is_empty() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        let (directory, name) = self.place(dir)?;
        self.directory_mut(directory).change(Change::Unlink { name });
        Ok(())
    }

    /// Renames a file. From one directory into another that is two changes, each durable with its directory, as
    /// on a file system without a journal.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let entry = Entry::File(self.find_file(from)?);
        let (source, from) = self.place(from)?;
        let (target, to) = self.place(to)?;
        if matches!(self.directory(target).cached.get(&to), Some(Entry::Directory(_))) {
            return Err(ErrorKind::IsADirectory.into());
        }
        if source != target {
            self.directory_mut(target).change(Change::Link { name: to, entry });
            self.directory_mut(source).change(Change::Unlink { name: from });
        } else if from != to {
            self.directory_mut(source).change(Change::Rename { from, to, entry });
        }
        Ok(())
    }

    /// Makes the directories that are missing, and where `durably` syncs the parent of each one made.
    pub(super) fn create_dirs(&mut self, dir: &Path, durably: bool) -> io::Result<()> {
        let mut parent = ROOT;
        for name in components(dir) {
            parent = match self.directory(parent).cached.get(&name) {
                Some(Entry::Directory(id)) => *id,
                Some(Entry::File(_)) => return Err(ErrorKind::NotADirectory.into()),
                None => self.create_dir(parent, name, durably),
            };
        }
        Ok(())
    }

    fn create_dir(&mut self, parent: DirectoryId, name: String, durably: bool) -> DirectoryId {
        let id = DirectoryId(self.directory_next);
        self.directory_next += 1;
        self.directories.insert(id, Directory::default());
        let parent = self.directory_mut(parent);
        parent.change(Change::Link { name, entry: Entry::Directory(id) });
        if durably {
            parent.settle(parent.unsynced.len());
        }
        id
    }

    pub(super) fn sync(&mut self, dir: &Path) -> io::Result<()> {
        let id = self.find_directory(dir)?;
        let directory = self.directory_mut(id);
        directory.settle(directory.unsynced.len());
        Ok(())
    }

    /// See [`super::content::Content::fail_sync`].
    pub(super) fn fail_sync(&mut self, dir: &Path) -> io::Result<()> {
        let id = self.find_directory(dir)?;
        self.directory_mut(id).unsynced.clear();
        Ok(())
    }

    /// Takes a name away from both views; its directory is synced with that.
    pub(super) fn remove_durably(&mut self, path: &Path) -> io::Result<()> {
        self.remove(path)?;
        self.sync_parent(path)
    }

    /// Syncs the directory that a path lies in.
    pub(super) fn sync_parent(&mut self, path: &Path) -> io::Result<()> {
        let (id, _) = self.place(path)?;
        let directory = self.directory_mut(id);
        directory.settle(directory.unsynced.len());
        Ok(())
    }

    /// Leaves what a power cut leaves: of each directory's changes a first part.
    pub(super) fn lose_power(&mut self, random: &mut Random) {
        for directory in self.directories.values_mut() {
            let kept = random.below(directory.unsynced.len() + 1);
            directory.settle(kept);
            directory.unsynced.clear();
            directory.cached.clone_from(&directory.durable);
        }
    }

    /// All files that have a name, in the order of their paths.
    pub(super) fn files(&self) -> Vec<(PathBuf, FileId)> {
        let mut files = Vec::new();
        let mut directories = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, id)) = directories.pop() {
            for (name, entry) in &self.directory(id).cached {
                match entry {
                    Entry::File(file) => files.push((path.join(name), *file)),
                    Entry::Directory(directory) => directories.push((path.join(name), *directory)),
                }
            }
        }
        files.sort_unstable();
        files
    }

    /// The files that have a name in the cache.
    pub(super) fn file_ids(&self) -> BTreeSet<FileId> {
        self.files().into_iter().map(|(_, file)| file).collect()
    }
}

/// The one way to write a path.
pub(super) fn absolute(path: &Path) -> PathBuf {
    let mut absolute = PathBuf::from("/");
    absolute.extend(components(path));
    absolute
}

fn components(path: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => {
                names.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    names
}
