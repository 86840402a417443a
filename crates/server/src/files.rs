//! How many files this process may open. Each replica keeps tables open, each connection is one: the limit that a
//! system gives by default is soon used up, and a store that cannot open a file stops the process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit to the highest that the system allows.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let highest = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, highest) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Says so if `replicas` may need more files than this process may open.
pub fn check_limit(replicas: usize) {
    let needed = storage::open_files(replicas);
    if let Some(limit) = getrlimit(Resource::Nofile)
        .current
        .filter(|limit| *limit < needed)
    {
        tracing::warn!(
            limit,
            needed,
            replicas,
            "the limit of open files is too low for the replicas here: raise it (ulimit -n, LimitNOFILE)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_it_may_be() {
        raise_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
