//! DescribeConfigs (key 32), versions 1-4, AlterConfigs (key 33), versions 0-2,
//! IncrementalAlterConfigs (key 44), versions 0-1, and ListConfigResources (key 74), versions 0-1.
//! Reading is answered from the image, changes go to the catalog's shard.

use super::job::CatalogJob;
use super::{Begun, Facts, topics};
use crate::state::ShardState;
use crate::wire::messages::alter_configs::AlterConfigsRequest;
use crate::wire::messages::describe_configs::DescribeConfigsRequest;
use crate::wire::messages::incremental_alter_configs::IncrementalAlterConfigsRequest;
use crate::wire::messages::list_config_resources::ListConfigResourcesRequest;

/// DescribeConfigs.
pub fn begin_describe(
    state: &mut ShardState,
    facts: &Facts,
    request: DescribeConfigsRequest,
) -> Begun {
    facts.reply(&state.image.describe_configs(&request))
}

/// ListConfigResources.
pub fn begin_list_resources(
    state: &mut ShardState,
    facts: &Facts,
    request: ListConfigResourcesRequest,
) -> Begun {
    facts.reply(&state.image.list_config_resources(&request, facts.version))
}

/// AlterConfigs.
pub fn begin_alter(_: &mut ShardState, _: &Facts, request: AlterConfigsRequest) -> Begun {
    topics::ask(CatalogJob::AlterConfigs(request))
}

/// IncrementalAlterConfigs.
pub fn begin_incremental_alter(
    _: &mut ShardState,
    _: &Facts,
    request: IncrementalAlterConfigsRequest,
) -> Begun {
    topics::ask(CatalogJob::IncrementalAlterConfigs(request))
}
