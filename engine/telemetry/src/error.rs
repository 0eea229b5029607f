//! What can go wrong when a core asks for its shard.

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("statistics shard of core {core} asked for, but the registry was made for {cores} cores")]
    NoSuchCore { core: usize, cores: usize },
    #[error("statistics shard of core {core} was already taken; two writers would lose each other's counts")]
    ShardTaken { core: usize },
}
