import { basename } from 'node:path';
import { CheckpointError, UnsupportedError } from '@q/config';
import { readJsonObject } from './json-file.js';

/** `model.safetensors.index.json`: which shard holds which tensor. */
export interface ShardIndex {
  readonly path: string;
  /** Tensor name → file name, relative to the folder. */
  readonly weightMap: ReadonlyMap<string, string>;
  /** Shard file names, each once, sorted. */
  readonly shards: readonly string[];
  /** `metadata.total_size` in bytes, if the index has it. Published indexes are often wrong about it. */
  readonly totalSize: number | undefined;
  readonly metadata: Readonly<Record<string, unknown>>;
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Throws unless `shard` is a plain relative path that stays inside its folder, on every operating system. */
function checkShardName(shard: string, tensor: string, index: string): void {
  const parts = shard.split('/');
  const escapes =
    shard === '' || /[\\\0:]/.test(shard) || parts.some((part) => part === '' || part === '.' || part === '..');
  if (escapes) {
    throw new CheckpointError('checkpoint', 'a shard path leaves the folder of the checkpoint', {
      file: index,
      tensor,
      shard,
      why: 'weight_map must name files beside the index',
      fix: 'do not use this checkpoint, or correct the index',
    });
  }
  if (!shard.endsWith('.safetensors')) {
    throw new UnsupportedError('checkpoint', 'a shard is not a safetensors file', {
      file: index,
      tensor,
      shard,
      fix: 'convert the checkpoint to safetensors',
    });
  }
}

/**
 * Reads and checks a shard index.
 * @throws CheckpointError naming the index (and the tensor) for a damaged index or a path that leaves the folder.
 */
export async function readShardIndex(path: string, options: { signal?: AbortSignal } = {}): Promise<ShardIndex> {
  const json = await readJsonObject(path, options);
  const { weight_map: map, metadata = {} } = json;
  if (!isRecord(map)) throw new CheckpointError('checkpoint', 'the shard index has no weight_map', { file: path });
  if (!isRecord(metadata))
    throw new CheckpointError('checkpoint', 'the metadata of the shard index is not an object', { file: path });
  const weightMap = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(map)) {
    if (typeof shard !== 'string')
      throw new CheckpointError('checkpoint', 'weight_map names no file for a tensor', { file: path, tensor });
    checkShardName(shard, tensor, path);
    weightMap.set(tensor, shard);
  }
  if (weightMap.size === 0) throw new CheckpointError('checkpoint', 'the shard index lists no tensors', { file: path });
  const total = metadata.total_size;
  if (total !== undefined && (typeof total !== 'number' || !Number.isSafeInteger(total) || total < 0)) {
    throw new CheckpointError('checkpoint', 'metadata.total_size is not a size in bytes', {
      file: path,
      total_size: total,
    });
  }
  return { path, weightMap, shards: [...new Set(weightMap.values())].sort(), totalSize: total, metadata };
}

/** Throws unless a shard holds exactly the tensors that the index says it holds. */
export function checkShard(index: ShardIndex, shard: string, path: string, names: ReadonlySet<string>): void {
  const shown = { index: basename(index.path), file: path };
  for (const name of names) {
    const home = index.weightMap.get(name);
    if (home === shard) continue;
    throw new CheckpointError(
      'checkpoint',
      home === undefined
        ? 'a tensor of a shard is not in the index'
        : 'a tensor is in another shard than the index says',
      {
        ...shown,
        tensor: name,
        ...(home === undefined ? {} : { indexSays: home }),
        why: 'index and shards are not of the same save',
        fix: 'fetch the checkpoint again',
      },
    );
  }
  for (const [name, home] of index.weightMap) {
    if (home !== shard || names.has(name)) continue;
    throw new CheckpointError('checkpoint', 'a tensor of the index is missing from its shard', {
      ...shown,
      tensor: name,
      why: 'index and shards are not of the same save',
      fix: 'fetch the checkpoint again',
    });
  }
}
