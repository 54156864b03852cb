import type { RopeConfig } from '@q/config';
import type { RopeOptions } from '@q/tensor';
import type { Pass } from '../pass/pass.js';
import { constantOf, type Constant } from './constant.js';
import { Module } from './module.js';

export interface RopeShape {
  readonly rotaryDim: number;
  readonly maxPositionEmbeddings: number;
  /** Pairs are neighbours, else those of the two halves of the rotated part. Default false. */
  readonly interleaved?: boolean;
}

/** The settings of one type. */
type RopeOf<T extends RopeConfig['type']> = Extract<RopeConfig, { type: T }>;

/** Frequencies [rotaryDim / 2] and the factor on cos and sin. */
export interface Rotation {
  readonly frequencies: Float32Array;
  readonly scale: number;
}

const plain = (theta: number, dim: number): number[] =>
  Array.from({ length: dim / 2 }, (_, i) => Math.fround(1 / theta ** ((2 * i) / dim)));

const linearScaling = ({ theta, factor }: RopeOf<'linear'>, { rotaryDim }: RopeShape): Rotation => ({
  frequencies: Float32Array.from(plain(theta, rotaryDim), (frequency) => frequency / factor),
  scale: 1,
});

/** NTK-aware scaling that grows with the length (transformers' "dynamic"). */
function dynamicNtk(
  { theta, factor }: RopeOf<'dynamic'>,
  { rotaryDim, maxPositionEmbeddings }: RopeShape,
  length: number,
): Rotation {
  const over = Math.max(length, maxPositionEmbeddings) / maxPositionEmbeddings;
  const base = theta * (factor * over - (factor - 1)) ** (rotaryDim / (rotaryDim - 2));
  return { frequencies: Float32Array.from(plain(base, rotaryDim)), scale: 1 };
}

/** What YaRN multiplies by for texts that are `factor` times longer. */
export const yarnMagnitude = (factor: number, weight = 1): number =>
  factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1;

/** YaRN (Peng et al. 2023): high frequencies stay, low ones are interpolated, with a ramp between. */
function yarn(config: RopeOf<'yarn'>, { rotaryDim }: RopeShape): Rotation {
  const {
    theta,
    factor,
    originalMaxPositionEmbeddings: original,
    betaFast,
    betaSlow,
    mscale,
    mscaleAllDim,
    truncate,
  } = config;
  const scale =
    config.attentionFactor ??
    (mscale && mscaleAllDim
      ? yarnMagnitude(factor, mscale) / yarnMagnitude(factor, mscaleAllDim)
      : yarnMagnitude(factor));
  const pairWith = (rotations: number) =>
    (rotaryDim * Math.log(original / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  const low = Math.max(truncate ? Math.floor(pairWith(betaFast)) : pairWith(betaFast), 0);
  const high = Math.min(truncate ? Math.ceil(pairWith(betaSlow)) : pairWith(betaSlow), rotaryDim - 1);
  const span = high === low ? 0.001 : high - low;
  const frequencies = plain(theta, rotaryDim).map((frequency, i) => {
    const interpolated = Math.min(Math.max((i - low) / span, 0), 1);
    return (frequency / factor) * interpolated + frequency * (1 - interpolated);
  });
  return { frequencies: Float32Array.from(frequencies), scale };
}

/** LongRoPE (Ding et al. 2024): per-pair factors, one list for short and one for long contexts. */
function longrope(config: RopeOf<'longrope'>, { rotaryDim }: RopeShape, length: number): Rotation {
  const { factor, originalMaxPositionEmbeddings: original } = config;
  const scale = config.attentionFactor ?? (factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original)));
  const factors = length > original ? config.longFactor : config.shortFactor;
  return {
    frequencies: Float32Array.from(plain(config.theta, rotaryDim), (frequency, i) => frequency / factors[i]),
    scale,
  };
}

/** Llama 3.1: low frequencies divided by the factor, high ones kept, a smooth transition between two wavelengths. */
function llama3(config: RopeOf<'llama3'>, { rotaryDim }: RopeShape): Rotation {
  const { theta, factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings: original } = config;
  const frequencies = plain(theta, rotaryDim).map((frequency) => {
    const wavelength = (2 * Math.PI) / frequency;
    if (wavelength > original / lowFreqFactor) return frequency / factor;
    if (wavelength < original / highFreqFactor) return frequency;
    const smooth = (original / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
    return ((1 - smooth) * frequency) / factor + smooth * frequency;
  });
  return { frequencies: Float32Array.from(frequencies), scale: 1 };
}

/**
 * Frequencies for a context of `length` tokens; follows transformers' modeling_rope_utils.
 */
export function rotationFor(config: RopeConfig, shape: RopeShape, length: number): Rotation {
  switch (config.type) {
    case 'default':
      return { frequencies: Float32Array.from(plain(config.theta, shape.rotaryDim)), scale: 1 };
    case 'linear':
      return linearScaling(config, shape);
    case 'dynamic':
      return dynamicNtk(config, shape, length);
    case 'yarn':
      return yarn(config, shape);
    case 'longrope':
      return longrope(config, shape, length);
    case 'llama3':
      return llama3(config, shape);
  }
}

/** The rotary embedding of a model: one table on the device, or one row per sequence where the length decides. */
export class Rope extends Module {
  readonly #dependsOnLength: boolean;
  readonly #scale: number;
  readonly #table: Constant;

  constructor(
    readonly className: string,
    private readonly config: RopeConfig,
    private readonly shape: RopeShape,
  ) {
    super();
    const half = shape.rotaryDim / 2;
    for (const name of ['inv_freq', 'original_inv_freq']) this.buffers.set(name, { shape: [half], dtype: 'float32' });
    this.#dependsOnLength = config.type === 'dynamic' || config.type === 'longrope';
    const { frequencies, scale } = rotationFor(config, shape, 0);
    this.#scale = scale;
    this.#table = constantOf(frequencies, [half]);
  }

  /**
   * See `rebuildAt` of models: the text is one with short factors, or one with long ones. What grows with every token
   * (`dynamic`) is kept as it was written, as in Python.
   */
  get rebuildAt(): readonly number[] {
    return this.config.type === 'longrope' ? [this.config.originalMaxPositionEmbeddings + 1] : [];
  }

  /** How the queries and keys of a pass are rotated. */
  in({ backend, derived }: Pass): RopeOptions {
    const inverseFrequencies = this.#dependsOnLength
      ? derived.get(this, (lengths) => this.#rows(lengths))
      : this.#table.on(backend);
    return { inverseFrequencies, scale: this.#scale, interleaved: this.shape.interleaved };
  }

  #rows(lengths: readonly number[]): Float32Array {
    const half = this.shape.rotaryDim / 2;
    const values = new Float32Array(lengths.length * half);
    lengths.forEach((length, row) => values.set(rotationFor(this.config, this.shape, length).frequencies, row * half));
    return values;
  }

  override dispose(): void {
    this.#table.dispose();
  }
}

/** Rotary embeddings of kinds of layers, which Python keeps in one module. */
export class RopeByKind<K extends string> extends Module {
  readonly #ropes: ReadonlyMap<K, Rope>;

  /** @param configs in the order of Python's buffers */
  constructor(
    readonly className: string,
    configs: readonly (readonly [kind: K, config: RopeConfig])[],
    shape: RopeShape,
  ) {
    super();
    this.#ropes = new Map(configs.map(([kind, config]) => [kind, new Rope(className, config, shape)]));
    for (const [kind, { buffers }] of this.#ropes)
      for (const [name, buffer] of buffers) this.buffers.set(`${kind}_${name}`, buffer);
  }

  get rebuildAt(): readonly number[] {
    return [...this.#ropes.values()].flatMap((rope) => rope.rebuildAt);
  }

  /** The rotary embedding of a kind that the model has. */
  of(kind: K): Rope {
    return this.#ropes.get(kind)!;
  }

  override dispose(): void {
    for (const rope of this.#ropes.values()) rope.dispose();
  }
}

/** Where texts are computed anew for the rotary embeddings among modules. */
export const rebuildsOf = (modules: readonly Module[]): readonly number[] =>
  modules.flatMap((module) => (module instanceof Rope || module instanceof RopeByKind ? module.rebuildAt : []));
