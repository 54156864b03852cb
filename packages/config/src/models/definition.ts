import type { z } from 'zod';
import type { RopeConfig } from '../rope.js';
import type { ConfigWarning, JsonObject, JsonValue } from '../json.js';

/** Canonical activation names; gelu_tanh is the tanh approximation under all of its names. */
export type Activation = 'silu' | 'gelu' | 'gelu_tanh' | 'quick_gelu' | 'relu';

export type LayerType = 'full_attention' | 'sliding_attention';

/** What the decoder-only architectures share. Sizes are in elements. */
export interface DecoderConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly maxPositionEmbeddings: number;
  readonly rmsNormEps: number;
  readonly hiddenAct: Activation;
  /** Bias of the query, key and value projections. */
  readonly attentionBias: boolean;
  /** Bias of the attention output projection. */
  readonly attentionOutputBias: boolean;
  readonly mlpBias: boolean;
  /** The head uses the embedding matrix. */
  readonly tieWordEmbeddings: boolean;
  readonly rope: RopeConfig;
  /** Keys a query of a sliding layer sees, itself included; null when no layer slides. */
  readonly slidingWindow: number | null;
  /** One entry per layer. */
  readonly layerTypes: readonly LayerType[];
}

/** What a reader is given beside the keys. */
export interface ReadContext {
  /** Opens error messages. */
  readonly op: string;
  /** Takes a line for what is passed over. */
  warn(warning: ConfigWarning): void;
}

/** Reads one architecture. A new one is a file like `llama.ts` and a row in `registry.ts`. */
export interface ModelDefinition<
  M extends string = string,
  C extends object = object,
  S extends z.ZodRawShape = z.ZodRawShape,
> {
  readonly modelType: M;
  /** The keys of config.json that it reads, with their checks and defaults. A key without a default must be there. */
  readonly shape: S;
  /** Further keys it reads straight from `raw`. */
  readonly alsoReads?: readonly string[];
  /** Values of keys of other architectures that describe what this one does anyway. */
  readonly neutral?: Readonly<Record<string, readonly JsonValue[]>>;
  /** Keys whose default is worth a line: nearly every file has them. */
  readonly expected?: readonly string[];
  /** Special tokens of a file that does not say, as in the Python class. Default none. */
  readonly tokenIds?: { readonly bos: number; readonly eos: number };
  /** From checked keys to the typed config. */
  read(keys: z.output<z.ZodObject<S>>, raw: JsonObject, context: ReadContext): C;
}

export const defineModel = <M extends string, C extends object, S extends z.ZodRawShape>(
  definition: ModelDefinition<M, C, S>,
): ModelDefinition<M, C, S> => definition;
