//! What the stores can be told, and the RocksDB settings that follow from it. Figures: `docs/benchmarks.md`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Env, LogLevel, WriteBufferManager,
};

use super::hot::Budget;
use crate::lock::{self, DirLock};
use crate::{Done, Finish, Owner, damaged};

/// The moments between which a crash leaves something different behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The log's writer has a batch and has not begun to write it.
    LogBeforeSync,
    /// The batch is durable, nobody was told.
    LogAfterSync,
    /// A state commit is about to be applied.
    BeforeCommit,
    /// A state commit was applied, in memory only.
    AfterCommit,
    /// A new generation is complete and open; the marker still names the old one.
    BeforeMarker,
    /// The marker names the new generation; the old one is still there.
    AfterMarker,
}

/// Tables that the log keeps open at most.
pub const LOG_FILES: usize = 256;
/// Tables that one partition keeps open at most.
pub const STATE_FILES: usize = 64;

/// Called at each [`Step`], on the thread that does the work. An error counts as the disk's, a pause as a slow disk.
pub type Probe = Arc<dyn Fn(Step) -> io::Result<()> + Send + Sync>;

/// Settings of both stores. The defaults suit three nodes with up to a few hundred partitions.
#[derive(Clone)]
pub struct Options {
    /// Refuses a log written for someone else. Default: not checked.
    pub owner: Option<Owner>,
    /// One memtable of the log, in bytes. Default 16 MiB. More: fewer flushes, longer replay after a crash.
    pub log_buffer_bytes: usize,
    /// One memtable of a partition, in bytes. Default 24 MiB. More: fewer flushes, a longer tail to replay from the log.
    pub state_buffer_bytes: usize,
    /// All partitions' memtables together, in bytes. Default 96 MiB. Too little makes many small flushes.
    pub state_buffers_bytes: usize,
    /// Block cache of all partitions, memtables charged to it, in bytes. Default 192 MiB.
    pub cache_bytes: usize,
    /// Records of all partitions that apply reads again and again, in bytes. Default 32 MiB.
    pub hot_bytes: usize,
    /// Threads for compactions; flushes have half as many. Default 2.
    pub background_threads: i32,
    /// Who calls back when a batch of the log is durable. Default: the log's writer itself.
    pub finish: Option<Finish>,
    /// Test hook. Default: none.
    pub probe: Option<Probe>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            owner: None,
            log_buffer_bytes: 16 << 20,
            state_buffer_bytes: 24 << 20,
            state_buffers_bytes: 96 << 20,
            cache_bytes: 192 << 20,
            hot_bytes: 32 << 20,
            background_threads: 2,
            finish: None,
            probe: None,
        }
    }
}

impl Options {
    pub(super) fn probe(&self, step: Step) -> io::Result<()> {
        self.probe.as_ref().map_or(Ok(()), |probe| probe(step))
    }

    pub(super) fn finish(&self, finished: Vec<(Done, io::Result<()>)>) {
        match &self.finish {
            Some(finish) => finish(finished),
            None => finished.into_iter().for_each(|(done, result)| done(result)),
        }
    }

    /// What both kinds of database share: few threads, few files, a quiet info log.
    fn base(&self, mut db: rocksdb::Options, env: &Env) -> rocksdb::Options {
        db.set_env(env);
        db.set_max_background_jobs(3);
        db.set_max_file_opening_threads(1);
        db.set_keep_log_file_num(1);
        db.set_log_level(LogLevel::Warn);
        db.set_stats_dump_period_sec(0);
        db.set_stats_persist_period_sec(0);
        db.set_skip_stats_update_on_db_open(true);
        db.set_paranoid_checks(true);
        db
    }

    /// The log: written once, read rarely, purged soon. Nothing is compressed; three memtables are merged before a
    /// flush, since most entries are purged before they need to reach a file.
    ///
    /// Each write is synced before the next begins, so after a crash only the last record of the write-ahead log can be
    /// cut short, and nobody was told of it: `TolerateCorruptedTailRecords` drops that one and refuses damage anywhere
    /// else, where `PointInTime` would silently forget what follows. One that lacks pages in its middle it refuses too:
    /// that is for `tail` to tell.
    ///
    /// A write-ahead log that is full is recorded in the manifest, so that one that goes missing is noticed. Unless it
    /// is let go of in the background, RocksDB records it again with every later sync, which doubles their number.
    pub(super) fn log(&self, env: &Env) -> io::Result<rocksdb::Options> {
        // The library has no method for this one.
        let named =
            rocksdb::Options::default().get_options_from_string("background_close_inactive_wals=true");
        let mut db = self.base(named.map_err(io::Error::other)?, env);
        db.set_write_buffer_size(self.log_buffer_bytes);
        db.set_max_write_buffer_number(4);
        db.set_min_write_buffer_number_to_merge(3);
        db.set_arena_block_size(1 << 20);
        db.set_max_open_files(LOG_FILES as i32);
        db.set_compression_type(DBCompressionType::None);
        db.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        db.set_track_and_verify_wals_in_manifest(true);
        db.set_wal_bytes_per_sync(0);
        db.set_target_file_size_base(64 << 20);
        db.set_max_bytes_for_level_base(256 << 20);
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(8 << 20));
        table.set_block_size(16 << 10);
        table.set_format_version(5);
        db.set_block_based_table_factory(&table);
        Ok(db)
    }
}

/// What all partitions of a node share.
pub(super) struct Shared {
    pub(super) options: Options,
    env: Env,
    cache: Cache,
    buffers: WriteBufferManager,
    pub(super) hot: Arc<Budget>,
    _lock: DirLock,
}

impl Shared {
    pub(super) fn new(options: Options, lock: DirLock) -> io::Result<Shared> {
        let env = environment(&options)?;
        let cache = Cache::new_lru_cache(options.cache_bytes.max(options.state_buffers_bytes + (8 << 20)));
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(
            options.state_buffers_bytes,
            false,
            cache.clone(),
        );
        Ok(Shared {
            hot: Arc::new(Budget::new(options.hot_bytes)),
            options,
            env,
            cache,
            buffers,
            _lock: lock,
        })
    }

    /// A partition: no write-ahead log is used, the one column family makes data and position atomic.
    ///
    /// A file of level 0 is compacted with others that cover the same keys, all of them: waiting for more of
    /// them makes compactions fewer, and the filters keep reads from looking into each.
    pub(super) fn state(&self, create: bool) -> io::Result<rocksdb::Options> {
        let mut db = self.options.base(rocksdb::Options::default(), &self.env);
        db.create_if_missing(create);
        db.set_error_if_exists(create);
        db.set_write_buffer_size(self.options.state_buffer_bytes);
        db.set_max_write_buffer_number(3);
        db.set_level_zero_file_num_compaction_trigger(8);
        db.set_arena_block_size(64 << 10);
        db.set_max_open_files(STATE_FILES as i32);
        db.set_table_cache_num_shard_bits(0);
        // What was just flushed is rewritten soon: compressing it would be done twice.
        db.set_compression_per_level(&[DBCompressionType::None, DBCompressionType::Lz4]);
        db.set_write_buffer_manager(&self.buffers);
        db.set_level_compaction_dynamic_level_bytes(true);
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_bloom_filter(10.0, false);
        table.set_block_size(8 << 10);
        table.set_format_version(5);
        db.set_block_based_table_factory(&table);
        Ok(db)
    }

    /// A copy, which is read to be verified. It is made of the files of an open partition, and what the cache has of
    /// those says nothing of what is on the disk.
    pub(super) fn copy(&self) -> io::Result<rocksdb::Options> {
        let mut db = self.state(false)?;
        let mut table = BlockBasedOptions::default();
        table.disable_cache();
        db.set_block_based_table_factory(&table);
        Ok(db)
    }
}

/// RocksDB's threads belong to the process: the log and all partitions share them.
pub(super) fn environment(options: &Options) -> io::Result<Env> {
    let mut env = Env::new().map_err(io::Error::other)?;
    env.set_high_priority_background_threads((options.background_threads / 2).max(1));
    env.set_low_priority_background_threads(options.background_threads.max(1));
    Ok(env)
}

/// RocksDB's error, with the directory named and the kind that callers act on: `InvalidData` is damage,
/// `ResourceBusy` another process, `StorageFull` a full disk, the rest the disk itself.
pub(super) fn rocks_error(dir: &Path, doing: &str, error: &rocksdb::Error) -> io::Error {
    let text = error.as_ref();
    let full = format!("{doing} {}: {text}", dir.display());
    let missing = text.contains("No such file") || text.contains("does not exist");
    match error.kind() {
        _ if text.contains("lock file") || text.contains("lock hold by current process") => lock::in_use(dir),
        rocksdb::ErrorKind::Corruption => damaged(full),
        rocksdb::ErrorKind::IOError | rocksdb::ErrorKind::InvalidArgument if missing => damaged(full),
        rocksdb::ErrorKind::IOError if text.contains("No space left") => {
            io::Error::new(io::ErrorKind::StorageFull, full)
        }
        _ => io::Error::other(full),
    }
}
