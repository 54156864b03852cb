import {
  assertInteger,
  assertKnownKeys,
  ConfigError,
  describeValue,
  UnsupportedError,
  type BitsAndBytesConfig,
  type ModelConfig,
  type QuantizationConfig,
} from '@q/config';
import {
  isStrategy,
  normalizeDeviceMap,
  planDevice,
  planPlacement,
  type Budgets,
  type DeviceMapInput,
  type DeviceReport,
  type Plan,
  type Wiring,
} from '@q/device-map';
import { kvBlockSize } from '@q/generate';
import { buildModel, planTree } from '@q/models';
import { dtypeBytes, type FloatDType } from '@q/tensor';
import { freeMemory } from './device.js';

export interface PlacementOptions {
  /** `auto`, `balanced`, `balanced_low_0`, `sequential`, a device, or `{ module: device }`. */
  readonly deviceMap?: string | number | DeviceMapInput;
  /** Bytes or text (`"10GiB"`) per device. Default: what the devices have free. */
  readonly maxMemory?: Budgets;
}

export interface PlanOptions extends PlacementOptions {
  readonly torchDtype?: string;
  readonly quantizationConfig?: QuantizationConfig;
  /** Let quantized modules go to cpu and disk. Default false: an error, as in transformers. */
  readonly quantizedOffload?: boolean;
  /** Tokens per sequence to keep room for. Default: no room for the cache. */
  readonly context?: number;
  /** Sequences to keep room for. Default 1. */
  readonly batch?: number;
  /** Dtype of the cache. Default `f16`. */
  readonly kvDtype?: FloatDType;
  /** Whose planner is followed. Default `q`. */
  readonly wiring?: Wiring;
  /** Devices to plan for. Default: those of this machine. */
  readonly devices?: DeviceReport;
}

const bitsOf = (config: QuantizationConfig): 4 | 8 => {
  const bnb = config as BitsAndBytesConfig;
  if (config.quantMethod !== 'bitsandbytes')
    throw new UnsupportedError('plan', `planning for ${config.quantMethod} is not supported`, {
      fix: 'plan with a BitsAndBytesConfig',
    });
  return bnb.loadIn8bit ? 8 : 4;
};

const planOptionNames = [
  'deviceMap',
  'maxMemory',
  'torchDtype',
  'quantizationConfig',
  'quantizedOffload',
  'context',
  'batch',
  'kvDtype',
  'wiring',
  'devices',
] as const;

/** @throws ConfigError unless it is what AutoConfig gives */
export function assertModelConfig(op: string, config: unknown): asserts config is ModelConfig {
  if (typeof (config as Partial<ModelConfig> | null | undefined)?.modelType === 'string') return;
  throw new ConfigError(op, `the config is ${describeValue(config)}`, {
    fix: 'give what AutoConfig.fromPretrained() or parseModelConfig() returns',
  });
}

/**
 * Where the modules of a config's model would go, without weights: sizes follow from the config alone.
 * @throws PlanRefusedError, ConfigError, UnsupportedError
 */
export async function planFor(config: ModelConfig, options: PlanOptions = {}): Promise<Plan> {
  assertModelConfig('planFor', config);
  assertKnownKeys('planFor', options, planOptionNames);
  const {
    deviceMap = 'auto',
    maxMemory,
    torchDtype,
    quantizationConfig,
    quantizedOffload,
    context,
    batch = 1,
    kvDtype = 'f16',
    wiring,
    devices,
  } = options;
  if (context !== undefined) assertInteger('planFor', 'context', context);
  assertInteger('planFor', 'batch', batch);
  const dtype = !torchDtype || torchDtype === 'auto' ? (config.dtype ?? 'float32') : torchDtype;
  const bnb = quantizationConfig as BitsAndBytesConfig | undefined;
  return planPlacement({
    tree: planTree(config),
    dtype,
    maxMemory,
    wiring,
    quantizedOffload,
    deviceMap,
    devices: maxMemory || devices ? devices : await freeMemory(),
    quantization: quantizationConfig && {
      bits: bitsOf(quantizationConfig),
      skipModules: bnb?.llmInt8SkipModules,
      cpuOffload: bnb?.llmInt8EnableFp32CpuOffload,
    },
    reserve: context === undefined ? undefined : { kvCache: cacheReserve(config, context, batch, kvDtype) },
  });
}

function cacheReserve(config: ModelConfig, context: number, batch: number, dtype: FloatDType) {
  const model = buildModel(config);
  const { noSplit } = planTree(config);
  const layers = [...model.walk()].filter(({ module }) => noSplit.includes(module.className)).map(({ path }) => path);
  const bytesPerToken = model.kvShapes.map(({ numKvHeads, headDim }) => 2 * numKvHeads * headDim * dtypeBytes(dtype));
  return { layers, bytesPerToken, context, batch, pageTokens: kvBlockSize };
}

/**
 * The one device that loading uses.
 * @throws UnsupportedError when the plan needs several, with the plan.
 */
export async function placeOnOne(
  config: ModelConfig,
  options: PlacementOptions & Pick<PlanOptions, 'torchDtype' | 'quantizationConfig'>,
): Promise<string> {
  const target = normalizeDeviceMap(options.deviceMap) ?? { '': 'cpu' };
  const devices = isStrategy(target) && !options.maxMemory ? await freeMemory() : undefined;
  const hasGpu = devices?.some(([device]) => typeof device === 'number') ?? true;
  const simple = !isStrategy(target) && Object.keys(target).join() === '';
  const deviceMap = simple
    ? target
    : (await planFor(config, { ...options, deviceMap: target, devices, quantizedOffload: !hasGpu })).deviceMap;
  const used = [...new Set(Object.values(deviceMap).map(planDevice))];
  if (used.length === 1 && used[0] !== 'disk') return typeof used[0] === 'number' ? `cuda:${used[0]}` : String(used[0]);
  throw new UnsupportedError('fromPretrained', `this plan needs ${used.length} devices (${used.join(', ')})`, {
    deviceMap,
    why: 'running one model over several devices is not there yet',
    fix: 'raise maxMemory of one device, quantize, or use a smaller model',
  });
}
