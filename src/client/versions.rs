//! Which version of each API to use with one broker: the highest that both sides know, by the
//! broker's answer to ApiVersions (KIP-511).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::wire::messages::api_versions::ApiVersionsResponse;
use crate::wire::{Message, Request};

/// What one broker speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Versions(BTreeMap<i16, RangeInclusive<i16>>);

impl Versions {
    /// The ranges that the broker announced.
    pub fn new(response: &ApiVersionsResponse) -> Self {
        let rows = response.api_keys.iter();
        Self(
            rows.map(|row| (row.api_key, row.min_version..=row.max_version))
                .collect(),
        )
    }

    /// What the broker announced for an API.
    pub fn range(&self, api_key: i16) -> Option<&RangeInclusive<i16>> {
        self.0.get(&api_key)
    }

    /// The highest version in common that is not above `version_max`.
    pub fn pick<R: Request>(&self, version_max: i16) -> Option<i16> {
        let theirs = self.range(R::KEY)?;
        let ours = <R as Message>::VERSIONS;
        let version = (*ours.end()).min(*theirs.end()).min(version_max);
        (version >= *ours.start() && version >= *theirs.start()).then_some(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::fetch::FetchRequest;

    #[test]
    fn the_highest_common_version_is_picked() {
        let (first, last) = (
            *<FetchRequest as Message>::VERSIONS.start(),
            *<FetchRequest as Message>::VERSIONS.end(),
        );
        let check = |theirs: RangeInclusive<i16>, version_max: i16, expected: Option<i16>| {
            let versions = Versions([(FetchRequest::KEY, theirs)].into());
            assert_eq!(versions.pick::<FetchRequest>(version_max), expected);
        };
        check(0..=last + 5, i16::MAX, Some(last));
        check(0..=11, i16::MAX, Some(11));
        check(0..=last, 12, Some(12));
        check(13..=last, 12, None);
        check(0..=first - 1, i16::MAX, None);
        check(last + 1..=last + 2, i16::MAX, None);
        assert_eq!(Versions::default().pick::<FetchRequest>(i16::MAX), None);
    }
}
