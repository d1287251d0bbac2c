//! A manifest, and a mark.

use super::resealed;
use crate::Uuid;
use crate::format::manifest::Manifest;
use crate::format::mark::{self, MARK_BYTES};
use crate::format::prelude::{self, Kind, PRELUDE_BYTES};

/// Takes bytes for a manifest, whose header says how long it is or which is as long as it is; and for a mark. Returns how many
/// segments, cursors and marks were understood.
#[must_use]
pub fn manifest(bytes: &[u8]) -> usize {
    let of_its_length = resealed(bytes, |bytes| {
        if bytes.len() >= PRELUDE_BYTES {
            let store = prelude::stated_store(bytes);
            prelude::seal_header(bytes, Kind::Manifest, store);
        }
    });
    let of_header = resealed(bytes, prelude::reseal);
    let of_mark = resealed(bytes, mark::reseal);
    let manifests = [bytes, &of_header[..], &of_its_length[..]].map(take_manifest).into_iter().max();
    manifests.unwrap_or(0).max(take_mark(bytes)).max(take_mark(&of_mark))
}

fn take_manifest(bytes: &[u8]) -> usize {
    let Ok(manifest) = Manifest::decode(bytes) else { return 0 };
    let again = manifest.encode();
    assert_eq!(again.len(), bytes.len());
    // But for the checksums over what means nothing, and may be anything.
    assert_eq!(Manifest::decode(&again).as_ref(), Ok(&manifest), "what was understood is said again alike");
    assert!(manifest.epoch.checked_add(1).is_some() && manifest.edition.checked_add(1).is_some());
    assert!(manifest.last_made >= manifest.sealed.len() as u64);
    manifest.sealed.len() + manifest.cursors.len() + 1
}

fn take_mark(bytes: &[u8]) -> usize {
    let store = prelude::stated_store(bytes);
    let _ = (mark::refusal(bytes, store), mark::first_damage(bytes, Uuid::nil()));
    let Some(found) = mark::decode(bytes, store) else { return 0 };
    let again = mark::encode_file(store, &found);
    assert_eq!(again.len(), MARK_BYTES);
    assert_eq!(mark::decode(&again, store), Some(found), "what was understood is said again alike");
    assert_eq!(mark::first_damage(&again, store), None);
    assert!(found.sequence.checked_add(1).is_some());
    1
}
