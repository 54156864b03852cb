import { ConfigError, describeValue } from '@q/config';
import type { Reserve } from './reserve.js';
import type { ModuleTree, Tree } from './tree.js';
import type { Budgets, Device, DeviceMapInput, DeviceReport } from './types.js';
import type { Wiring } from './wiring/rules.js';
import type { Quantization } from './wiring/transformers-5.js';

/** What to place, and where it may go. */
export interface PlanRequest {
  /** The model. */
  tree: ModuleTree | Tree;
  /** A strategy (`auto` is `balanced`), a device for everything, or a map. Default `auto`. */
  deviceMap?: Device | DeviceMapInput | null;
  /** Budgets. Null or absent: what the devices report. */
  maxMemory?: Budgets | null;
  /** What the backends report. Needed when a strategy has no budgets. */
  devices?: DeviceReport;
  /**
   * Whose planner is followed. Default `q`: that of `from_pretrained` in transformers 5, with nothing left uncounted.
   */
  wiring?: Wiring;
  /** Dtype the weights are loaded in. Default null: as they are. */
  dtype?: string | null;
  /** Dtype of tensors of the tree that carry none. Default: `dtype`; with `accelerate`, `float32`. */
  modelDtype?: string;
  /** Dtypes of particular tensors by path; only with `accelerate`. Default none. */
  specialDtypes?: Readonly<Record<string, string>>;
  /**
   * Exact bytes of particular tensors by path (quantized weights with their scales); overrides every other rule.
   * Default none.
   */
  tensorBytes?: Readonly<Record<string, number>> | ReadonlyMap<string, number>;
  /** Classes that are not split. Default: those of the tree. */
  noSplit?: readonly string[];
  /** False: the tree's `tied` parameters were not tied; only with `accelerate`. Default true. */
  tied?: boolean;
  /** bitsandbytes quantization; not with `accelerate`. Default none. */
  quantization?: Quantization | null;
  /** Let quantized modules go to cpu and disk, where Q can run them. Default false: an error, as in transformers. */
  quantizedOffload?: boolean;
  /** Share of every budget that a quantized model is planned with. Default 0.9 with `quantization`, else 1. */
  headroom?: number;
  /** Memory needed besides the weights. Default none. */
  reserve?: Reserve;
  /** Buffers of offloaded modules are offloaded too. Default false. */
  offloadBuffers?: boolean;
  /** When nothing fits a device, look further for a module that does. Default false. */
  fallbackAllocation?: boolean;
  /** Group modules that share a device. Default true. */
  cleanResult?: boolean;
  /** Which GPU `'cuda'` means. Default 0. */
  localRank?: number;
}

const known: Readonly<Record<keyof PlanRequest, true>> = {
  tree: true,
  deviceMap: true,
  maxMemory: true,
  devices: true,
  wiring: true,
  dtype: true,
  modelDtype: true,
  specialDtypes: true,
  tensorBytes: true,
  noSplit: true,
  tied: true,
  quantization: true,
  quantizedOffload: true,
  headroom: true,
  reserve: true,
  offloadBuffers: true,
  fallbackAllocation: true,
  cleanResult: true,
  localRank: true,
};

/** @throws ConfigError for unknown options, and for options that the wiring would ignore */
export const checkRequest = (request: PlanRequest): void => {
  if (typeof request !== 'object' || request === null)
    throw new ConfigError('planPlacement', `the request is ${describeValue(request)}`, {
      fix: 'give { tree, maxMemory, ... }',
    });
  const unknown = Object.keys(request).find((key) => !Object.hasOwn(known, key));
  if (unknown !== undefined)
    throw new ConfigError('planPlacement', 'unknown option', {
      option: unknown,
      fix: `options are ${Object.keys(known).join(', ')}`,
    });
  const { wiring = 'q', dtype, modelDtype, headroom = 1 } = request;
  const { specialDtypes = {}, tied = true, quantization = null, quantizedOffload = false } = request;
  const foreign =
    wiring === 'accelerate'
      ? { quantization: quantization !== null, quantizedOffload, headroom: headroom !== 1 }
      : { specialDtypes: Object.keys(specialDtypes).length > 0, tied: !tied };
  const ignored = Object.entries(foreign).find(([, used]) => used)?.[0];
  if (ignored !== undefined)
    throw new ConfigError('planPlacement', 'option has no meaning with this wiring', {
      option: ignored,
      wiring,
      fix: 'choose the other wiring or drop it',
    });
  if (wiring !== 'accelerate' && typeof dtype === 'string' && modelDtype !== undefined && modelDtype !== dtype) {
    throw new ConfigError('planPlacement', 'transformers builds a model in the dtype it loads', {
      dtype,
      modelDtype,
      fix: 'give only dtype',
    });
  }
  if (!(headroom > 0 && headroom <= 1))
    throw new ConfigError('planPlacement', 'not a share', { headroom, fix: 'give a number above 0, at most 1' });
};
