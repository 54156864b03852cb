import type { QuantizationConfig } from '@q/config';
import type { Backend, DType, FloatDType, LinearSlot, Tensor, Weight, WeightKind } from '@q/tensor';
import type { Checkpoint } from '../checkpoint.js';
import type { TensorEntry } from '../safetensors/header.js';
import type { TensorSpec } from '../safetensors/serialize.js';

/** A tensor of a checkpoint to be written, with where its bytes come from. */
export interface StoredTensor extends TensorSpec {
  readonly bytes: () => Promise<Uint8Array>;
}

/** The part of a Checkpoint that recognition needs. */
export type TensorLookup = Pick<Checkpoint, 'has' | 'tensor'>;

/** Where a checkpoint keeps a weight. */
export interface StoredBase {
  readonly format: WeightKind;
  /** The tensor under the weight's own name: its values or codes. */
  readonly weight: TensorEntry;
}

/** How one linear layer is stored. */
export interface StoredLayer {
  readonly module: string;
  /** What people call its format: `dense`, `nf4`, `fp4`, `int8`. */
  readonly format: string;
  /** Whether its scales are quantized too. */
  readonly nested?: boolean;
}

/** A parameter as a model sees it, told from headers and small tensors. */
export interface Description {
  /** What reports call its format: `dense`, `bnb-nf4`, `gptq`. */
  readonly format: string;
  /** The same in a table: a dense tensor by its dtype. */
  readonly storedAs: string;
  readonly shape: readonly number[];
  /** Element type: of the tensor, or of the weight before it was quantized. */
  readonly dtype: DType | string;
  /** Whether its elements are parameters; buffers of integers are none. */
  readonly counts: boolean;
}

/** What a format reads a weight with: files on one side, a device on the other. */
export interface WeightReader {
  readonly backend: Backend;
  /** The bytes of a small tensor. */
  bytes(entry: TensorEntry): Promise<Uint8Array>;
  /** Float values that stay on the device, in the dtype that dense weights are wanted in. */
  dense(entry: TensorEntry): Promise<Tensor>;
  /** The bytes of a tensor in device memory, read straight from the file. */
  load(entry: TensorEntry, shape: readonly number[], dtype: DType): Tensor;
  /** A small tensor on the device, flat, after `check` has looked at its bytes. */
  checked(entry: TensorEntry, check?: (entry: TensorEntry, bytes: Uint8Array) => void): Promise<Tensor>;
  /** Runs `make`; when it fails, frees the tensors that it took by `own`. */
  owning<T>(make: (own: <A extends Tensor>(tensor: A) => A) => Promise<T>): Promise<T>;
}

/** How a quantized format and its `quantization_config` go together. */
export interface FormatConfig<C extends QuantizationConfig = QuantizationConfig> {
  readonly method: C['quantMethod'];
  /** Whether products take codes as integers, for comparing speeds with peaks. */
  readonly integerProducts: boolean;
  /** Whether a config asks for this format. */
  asks(config: QuantizationConfig): config is C;
  /** In a few words: `nf4 double quant`. */
  describe(config: C): string;
  /** Bits of a code; what planners count for a value. */
  bits(config: C): number;
  /** The patterns of modules that the config keeps dense; null when it names none. See `skipRule` of `@q/config`. */
  skipped(config: C): readonly string[] | null;
  /** Whether modules off the GPU stay dense instead of being refused. */
  cpuOffload(config: C): boolean;
  /** Turns a dense weight into one of this format. @throws UnsupportedError when that takes more than the weight */
  quantizer(config: C): (dense: Tensor) => Weight;
  /** A config for layers of this format that no file describes, and what to say of it. */
  derive(found: StoredLayer, dtype: 'float32' | 'float16' | 'bfloat16'): { readonly config: C; readonly note: string };
  /** A config that asks for this format, corrected by what the tensors are. */
  corrected(config: C, found: StoredLayer): { readonly config: C; readonly warning?: string };
  /** The config with another list of modules that stay dense. */
  withSkipped(config: C, modules: readonly string[]): C;
  /**
   * What a caller has said beside the config of a quantized checkpoint: options of how to compute, which are applied,
   * and options that the weights have settled otherwise.
   */
  compare(
    stored: C,
    wanted: QuantizationConfig,
  ): {
    /** The stored config with the options that are applied, and their names. */
    readonly config: C;
    readonly applied: readonly string[];
    /** Options with their values, for a message. */
    readonly settled: readonly string[];
  };
}

/**
 * One way of keeping the weight of a linear layer in files. Everything that depends on the way is here, and in the
 * format of the same kind in `@q/tensor`.
 */
export interface CheckpointFormat<S extends StoredBase = StoredBase, W extends Weight = Weight> {
  readonly kind: S['format'] & W['kind'];
  /** Every name that {@link layer} gives. */
  readonly labels: readonly string[];
  /** Absent for weights that are not quantized. */
  readonly config?: FormatConfig;
  /** The parameter that a helper tensor belongs to: `a.weight.absmax` → `a.weight`. */
  owner?(name: string): string | undefined;
  /** The tensor of a weight that is not stored under its own name: `a.qweight` for `a.weight`; undefined if absent. */
  locate?(tensors: { has(name: string): boolean }, parameter: string): string | undefined;
  /** Whether helpers say that the tensor of this name has the shape of packed codes, not of the weight. */
  packs?(tensors: { has(name: string): boolean }, parameter: string): boolean;
  /**
   * The tensors of a weight, told by names, dtypes and shapes alone; undefined when it is in another format.
   * @throws CheckpointError naming the tensor when parts are missing or do not fit together
   */
  recognise(checkpoint: TensorLookup, weight: TensorEntry): S | undefined;
  layer(stored: S): Omit<StoredLayer, 'module'>;
  /** Element type before it was quantized, where the files say it. */
  originalDType?(
    checkpoint: Pick<Checkpoint, 'read'>,
    stored: S,
    options: { signal?: AbortSignal },
  ): Promise<FloatDType>;
  describe(checkpoint: Pick<Checkpoint, 'read'>, stored: S, options: { signal?: AbortSignal }): Promise<Description>;
  /**
   * @param settings a config that asks for this format, for how to compute; undefined when there is none
   * @throws CheckpointError, UnsupportedError naming file and tensor
   */
  read(stored: S, slot: LinearSlot, reader: WeightReader, settings?: QuantizationConfig): Promise<W>;
  /** The tensors to write, in the order in which the original library declares them. */
  write(slot: LinearSlot, weight: W): Promise<StoredTensor[]>;
}

/** A format that reports know and loading does not. */
export interface DescribedFormat {
  /** The tensor that a helper belongs to, if that is in the checkpoint. */
  owner(checkpoint: TensorLookup, name: string): string | undefined;
  /** Undefined when the tensor is in another format. @throws CheckpointError */
  describe(checkpoint: Checkpoint, name: string, bits: unknown): Description | undefined;
}
