import { pythonJsonFile } from '@q/config';
import { specBytes, type TensorSpec } from '../safetensors/serialize.js';

export interface ShardPlan {
  /** File name → its tensors, in the order in which they were declared. */
  readonly shards: ReadonlyMap<string, readonly TensorSpec[]>;
  /** Bytes of tensor data over all shards. */
  readonly totalSize: number;
  /** Name and text of the index; absent with one shard. */
  readonly index?: { readonly name: string; readonly text: string };
}

export interface PlanOptions {
  /** Most bytes of tensor data in one file; a larger tensor gets a file of its own. */
  maxShardBytes: number;
  baseName: string;
  /** `metadata.total_parameters` of the index; left out if not given. */
  totalParameters?: number;
}

/** Fills shards in order, as huggingface_hub's split_state_dict_into_shards does. */
function fill(tensors: readonly TensorSpec[], maxShardBytes: number): TensorSpec[][] {
  const shards: TensorSpec[][] = [];
  let current: TensorSpec[] = [];
  let size = 0;
  for (const tensor of tensors) {
    const bytes = specBytes(tensor);
    if (bytes > maxShardBytes) {
      shards.push([tensor]);
      continue;
    }
    if (size + bytes > maxShardBytes) {
      shards.push(current);
      current = [];
      size = 0;
    }
    current.push(tensor);
    size += bytes;
  }
  if (current.length > 0 || shards.length === 0) shards.push(current);
  return shards;
}

const number5 = (n: number) => String(n).padStart(5, '0');

/**
 * Which tensor goes into which file, and the index that says so, as transformers' save_pretrained decides and writes
 * it.
 */
export function planShards(tensors: readonly TensorSpec[], options: PlanOptions): ShardPlan {
  const { maxShardBytes, baseName, totalParameters } = options;
  const parts = fill(tensors, maxShardBytes);
  const totalSize = tensors.reduce((sum, tensor) => sum + specBytes(tensor), 0);
  if (parts.length === 1) return { shards: new Map([[`${baseName}.safetensors`, parts[0]]]), totalSize };
  const named = parts.map(
    (part, i) => [`${baseName}-${number5(i + 1)}-of-${number5(parts.length)}.safetensors`, part] as const,
  );
  const weightMap = Object.fromEntries(named.flatMap(([file, part]) => part.map((tensor) => [tensor.name, file])));
  const index = { metadata: { total_parameters: totalParameters, total_size: totalSize }, weight_map: weightMap };
  return {
    shards: new Map(named),
    totalSize,
    index: { name: `${baseName}.safetensors.index.json`, text: pythonJsonFile(index) },
  };
}
