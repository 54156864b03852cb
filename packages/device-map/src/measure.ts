import { dtypeBytes, isFixedDtype, storedBytes } from './dtypes.js';
import { type Measure, bufferBytes, measureTree } from './sizes.js';
import { type ModuleTree, type Tree, readTree, repeatedParameters } from './tree.js';
import { type Wiring, rulesOf } from './wiring/rules.js';
import { type Conversion, type Quantization, convertedBytes, planQuantization } from './wiring/transformers-5.js';

export interface SizeOptions {
  /** Whose rules are followed. Default `accelerate`. */
  wiring?: Wiring;
  /** Dtype of tensors that carry none. Default `float32`; with other wirings than `accelerate`, `dtype`. */
  modelDtype?: string;
  /** Dtype the floating-point tensors are loaded in; never larger than their own. Default null: as they are. */
  dtype?: string | null;
  /** Dtypes of particular tensors by path; only with `accelerate`. Default none. */
  specialDtypes?: Readonly<Record<string, string>>;
  /**
   * False: the tied parameters of the tree have not been tied, so each is counted; only with `accelerate`. Default
   * true.
   */
  tied?: boolean;
  /** bitsandbytes quantization; not with `accelerate`. Default none. */
  quantization?: Quantization | null;
}

/** accelerate's rule: special dtype, else own size for integers and bool (1/8 byte), else min(dtype, own dtype). */
const accelerateMeasure = (tree: Tree, options: SizeOptions): Measure => {
  const { modelDtype = 'float32', dtype = null, specialDtypes = {}, tied = true } = options;
  const limit = dtype === null ? Infinity : dtypeBytes(dtype);
  const element = remembered((own) => (isFixedDtype(own) ? dtypeBytes(own) : Math.min(limit, dtypeBytes(own))));
  return {
    skip: tied ? repeatedParameters(tree) : new Set(),
    bytes: (tensor) => {
      const special = Object.hasOwn(specialDtypes, tensor.path) ? specialDtypes[tensor.path] : undefined;
      if (special !== undefined) return tensor.elements * dtypeBytes(special);
      return tensor.elements * element(tensor.dtype ?? modelDtype);
    },
  };
};

/**
 * transformers 5's rule: every tensor has its stored element size, converted weights theirs; tied targets are not
 * counted.
 */
const transformersMeasure = (tree: Tree, modelDtype: string, converted: ReadonlyMap<string, number>): Measure => {
  const element = remembered(storedBytes);
  return {
    skip: new Set(tree.tiedWeights.keys()),
    bytes: (tensor) => tensor.elements * (converted.get(tensor.path) ?? element(tensor.dtype ?? modelDtype)),
  };
};

/** Answers per dtype, each found once. */
const remembered = (bytesOf: (dtype: string) => number): ((dtype: string) => number) => {
  const known = new Map<string, number>();
  return (dtype) => {
    let bytes = known.get(dtype);
    if (bytes === undefined) known.set(dtype, (bytes = bytesOf(dtype)));
    return bytes;
  };
};

/** How the tensors of a tree are measured under a wiring. `conversion` spares planning the quantization again. */
export const measureOf = (tree: Tree, options: SizeOptions, conversion?: Conversion | null): Measure => {
  if (rulesOf(options.wiring ?? 'accelerate').ties === 'tied') return accelerateMeasure(tree, options);
  const { quantization = null } = options;
  const converted = quantization === null ? null : (conversion ?? planQuantization(tree, quantization));
  const bytes = converted === null ? new Map<string, number>() : convertedBytes(converted, quantization!);
  return transformersMeasure(tree, options.modelDtype ?? options.dtype ?? 'float32', bytes);
};

/**
 * How the buffers of a placed module are measured: without special dtypes, whose names are those of the whole model.
 */
export const bufferMeasure = (tree: Tree, options: SizeOptions): Measure =>
  measureOf(tree, { ...options, specialDtypes: undefined }, null);

/**
 * Bytes of every module and tensor, by path, `''` being the whole model. Tied parameters count once, under the name
 * that comes first in the tree (transformers 5: under the source). Sources: `compute_module_sizes` of accelerate and of
 * transformers 5.
 * @throws DTypeError for an unknown dtype; ConfigError for a tree that is not one
 */
export const computeModuleSizes = (tree: ModuleTree | Tree, options: SizeOptions = {}): Record<string, number> => {
  const linked = readTree(tree);
  return Object.fromEntries(measureTree(linked, measureOf(linked, options)));
};

/** Bytes of all buffers of a model. Source: `compute_module_total_buffer_size` of both. */
export const computeBufferSize = (tree: ModuleTree | Tree, options: SizeOptions = {}): number => {
  const linked = readTree(tree);
  return bufferBytes(linked.root, measureOf(linked, options).bytes);
};
