import { ConfigError } from '@q/config';
import { parseSize } from './parse-size.js';
import type { Sizes } from './sizes.js';
import type { Tree } from './tree.js';
import { type Budgets, type ByteBudgets, type Device, type Size, budgetPairs, isOffload } from './types.js';

/** Memory that is needed besides the weights. */
export interface Reserve {
  /** The KV cache; every layer's part lies where the layer is, for a layer on disk in host memory. */
  kvCache?: KvCacheReserve;
  /** Bytes for activations and work buffers: one size for every GPU, or budgets per device. Default 0. */
  workBuffers?: Size | Budgets;
  /** Bytes of the driver's context on every GPU. Default 0. */
  deviceContext?: Size;
}

export interface KvCacheReserve {
  /** Paths of the modules that keep a cache, most often the decoder blocks. They are not split. */
  layers: readonly string[];
  /** Bytes of one token in one layer (models know it: `stateBytes` of `@q/models`), or in each layer. */
  bytesPerToken: number | readonly number[];
  /** Bytes of a sequence whatever its length, likewise: of layers with a recurrent state. Default 0. */
  bytesPerSequence?: number | readonly number[];
  /** Tokens per sequence. */
  context: number;
  /** Sequences at a time. Default 1. */
  batch?: number;
  /** Tokens are kept in pages of this size. Default 1. */
  pageTokens?: number;
}

const count = (value: number, name: string): number => {
  if (Number.isInteger(value) && value > 0) return value;
  throw new ConfigError('reserve', 'not a count', { [name]: value, fix: 'give a positive integer' });
};

/** A size of each layer, which is given once or for each. @throws ConfigError */
const perLayer = (cache: KvCacheReserve, name: 'bytesPerToken' | 'bytesPerSequence'): readonly number[] => {
  const { layers, [name]: given = 0 } = cache;
  const sizes = typeof given === 'number' ? layers.map(() => given) : given;
  if (sizes.length === layers.length && sizes.every((bytes) => Number.isFinite(bytes) && bytes >= 0)) return sizes;
  throw new ConfigError('reserve', `${name} does not fit the layers`, {
    layers: layers.length,
    [name]: given,
    fix: 'give one number, or one per layer',
  });
};

/**
 * Bytes of the KV cache by layer path.
 * @throws ConfigError for a path that is no module, layers inside each other, or counts that are not positive integers
 */
export const kvCacheBytes = (tree: Tree, cache: KvCacheReserve | undefined): Map<string, number> => {
  if (cache === undefined) return new Map();
  const { layers, pageTokens = 1, batch = 1 } = cache;
  const pages = Math.ceil(count(cache.context, 'context') / count(pageTokens, 'pageTokens'));
  const sequences = count(batch, 'batch');
  const perToken = perLayer(cache, 'bytesPerToken');
  const perSequence = perLayer(cache, 'bytesPerSequence');
  const listed = new Set(layers);
  for (const path of layers) {
    const above = path.split('.').map((_, index, parts) => parts.slice(0, index).join('.'));
    if (!tree.modules.has(path) || above.some((other) => listed.has(other)) || listed.size !== layers.length) {
      throw new ConfigError('reserve', 'not a module with a KV cache of its own', {
        path,
        fix: 'list each decoder block once, by its path',
      });
    }
  }
  return new Map(
    layers.map((path, index) => [path, (perToken[index]! * pages * pageTokens + perSequence[index]!) * sequences]),
  );
};

/** Adds the caches to the sizes of their layers and of everything above. */
export const withCaches = (sizes: Sizes, caches: ReadonlyMap<string, number>): Sizes => {
  if (caches.size === 0) return sizes;
  const out = new Map(sizes);
  for (const [path, bytes] of caches) {
    const parts = path === '' ? [] : path.split('.');
    for (let depth = 0; depth <= parts.length; depth++) {
      const above = parts.slice(0, depth).join('.');
      out.set(above, (out.get(above) ?? 0) + bytes);
    }
  }
  return out;
};

/**
 * Bytes set aside on each device for the context and work buffers.
 * @throws ConfigError for what is not a size
 */
export const fixedReserves = (reserve: Reserve, devices: readonly Device[]): Map<Device, number> => {
  const { workBuffers = 0, deviceContext = 0 } = reserve;
  const context = parseSize(deviceContext);
  const same = typeof workBuffers === 'object' ? undefined : parseSize(workBuffers);
  const particular = typeof workBuffers === 'object' ? new Map(budgetPairs(workBuffers)) : new Map<Device, Size>();
  const work = (device: Device): number =>
    same === undefined ? parseSize(particular.get(device) ?? 0) : isOffload(device) ? 0 : same;
  return new Map(devices.map((device) => [device, work(device) + (isOffload(device) ? 0 : context)]));
};

/** Budgets less what is set aside, never below 0. */
export const lessReserves = (budgets: ByteBudgets, reserves: ReadonlyMap<Device, number>): ByteBudgets =>
  budgets.map(([device, bytes]) => [device, Math.max(0, bytes - (reserves.get(device) ?? 0))]);
