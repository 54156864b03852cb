import { basename } from 'node:path';
import { CheckpointError, UnsupportedError } from '@q/config';
import { readJsonObject } from './json-file.js';
import { countOf, listNames } from './list-names.js';

/** `model.safetensors.index.json`, `pytorch_model.bin.index.json`: which shard holds which tensor. */
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
  if (!/\.(safetensors|bin)$/.test(shard)) {
    throw new UnsupportedError('checkpoint', 'a shard is no weight file', {
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

/**
 * Compares an index with its shards, of which the headers were read. What a shard holds counts; what the index says
 * otherwise becomes a warning.
 * @returns `absent`: tensors that the index names and no shard has, with the shard that should
 * @throws CheckpointError for a tensor that two shards have: nothing says which one counts.
 */
export function compareShards(
  index: ShardIndex,
  files: readonly { path: string; tensors: ReadonlyMap<string, unknown>; unsupported: ReadonlyMap<string, unknown> }[],
): { absent: Map<string, string>; warnings: string[] } {
  const home = new Map<string, string>();
  const unlisted: string[] = [];
  const moved: string[] = [];
  for (const file of files) {
    for (const name of [...file.tensors.keys(), ...file.unsupported.keys()]) {
      const other = home.get(name);
      if (other !== undefined)
        throw new CheckpointError('checkpoint', 'two shards have the same tensor', {
          index: basename(index.path),
          tensor: name,
          shards: [other, basename(file.path)],
          why: 'index and shards are not of the same save',
          fix: 'fetch the checkpoint again',
        });
      home.set(name, basename(file.path));
      const listed = index.weightMap.get(name);
      if (listed === undefined) unlisted.push(name);
      else if (basename(listed) !== basename(file.path)) moved.push(name);
    }
  }
  const absent = new Map([...index.weightMap].filter(([name]) => !home.has(name)));
  const line = (names: readonly string[], what: string) =>
    names.length > 0 ? [`${basename(index.path)} ${what}: ${listNames(names)}`] : [];
  return {
    absent,
    warnings: [
      ...line([...absent.keys()], `names ${countOf(absent.size, 'tensor')} that no shard has`),
      ...line(unlisted, `does not name ${countOf(unlisted.length, 'tensor')} of the shards`),
      ...line(moved, `names another shard than the one that has them for ${countOf(moved.length, 'tensor')}`),
    ],
  };
}
