import { assertInteger, ConfigError, describeValue, UnsupportedError } from '@q/config';
import {
  deviceFinder,
  isStrategy,
  normalizeDeviceMap,
  planDevice,
  planPlacement,
  PlanRefusedError,
  type Budgets,
  type DeviceMapInput,
  type DeviceReport,
  type Plan,
  type PlanRequest,
  type Wiring,
} from '@q/device-map';
import { plannedQuantization } from '@q/loader';
import {
  buildModel,
  kvBlockSize,
  planTree,
  stateElements,
  taskOf,
  type Model,
  type ModelConfig,
  type StateSize,
  type Task,
} from '@q/models';
import { dtypeBytes, type FloatDType } from '@q/tensor';
import { freeMemory, listDevices } from './device.js';
import { activationDType, cacheDType, computeDTypes, floatDType, storedDType } from './dtypes.js';
import { quantizationFor, type QuantizationOptions } from './quantization.js';

export interface PlacementOptions {
  /** `auto`, `balanced`, `balanced_low_0`, `sequential`, a device, or `{ module: device }`. */
  readonly deviceMap?: string | number | DeviceMapInput;
  /** Bytes or text (`"10GiB"`) per device. Default: what the devices have free. */
  readonly maxMemory?: Budgets;
}

/**
 * What to plan for. Quantization is what loading would do: that of the checkpoint, else `loadIn4bit`, `loadIn8bit` or
 * `quantizationConfig`.
 */
export interface PlanOptions extends PlacementOptions, QuantizationOptions {
  /** Dtype of dense weights. Default `auto`: what config.json says. */
  readonly torchDtype?: string;
  /** Let quantized modules go to cpu and disk. Default false: an error, as in transformers. */
  readonly quantizedOffload?: boolean;
  /** Tokens per sequence to keep room for. Default: no room for the cache. */
  readonly context?: number;
  /** Sequences to keep room for. Default 1. */
  readonly batch?: number;
  /** Dtype of the cache. Default: what each device computes in: f32 on a CPU, the model's dtype on a GPU. */
  readonly kvDtype?: FloatDType;
  /** Whose planner is followed. Default `q`. */
  readonly wiring?: Wiring;
  /** Devices to plan for. Default: those of this machine. */
  readonly devices?: DeviceReport;
}

export const planOptionNames = [
  'deviceMap',
  'maxMemory',
  'torchDtype',
  'loadIn8bit',
  'loadIn4bit',
  'quantizationConfig',
  'quantizedOffload',
  'context',
  'batch',
  'kvDtype',
  'wiring',
  'devices',
] as const satisfies readonly (keyof PlanOptions)[];

/** @throws ConfigError unless it is what AutoConfig gives */
export function assertModelConfig(op: string, config: unknown): asserts config is ModelConfig {
  if (typeof (config as Partial<ModelConfig> | null | undefined)?.modelType === 'string') return;
  throw new ConfigError(op, `the config is ${describeValue(config)}`, {
    fix: 'give what AutoConfig.fromPretrained() or parseModelConfig() returns',
  });
}

/** What is planned. */
export interface Planned {
  /** Dtype of the weights where `torchDtype` does not say. Default: what the config says. */
  readonly storedIn?: FloatDType;
  /** What the model is loaded for. Default: what the class is that the config names. */
  readonly task?: Task;
  /** Optional modules that the weights lack. Default none. */
  readonly without?: readonly string[];
}

/** What can be told of the options before planning. */
function checkPlanOptions({ maxContext }: Model, options: PlanOptions): void {
  const { context, batch, kvDtype } = options;
  if (batch !== undefined) assertInteger('planFor', 'batch', batch);
  if (kvDtype !== undefined && !computeDTypes.gpu.includes(kvDtype))
    throw new ConfigError('planFor', `kvDtype is ${describeValue(kvDtype)}`, { fix: 'use "f32", "f16" or "bf16"' });
  if (context === undefined) return;
  assertInteger('planFor', 'context', context);
  if (context > maxContext)
    throw new ConfigError('planFor', `context is ${context}`, { why: `the model reaches ${maxContext} tokens` });
}

/**
 * Where the modules of a config's model go; loading and `planFor` both ask.
 * @throws as planFor
 */
export async function planConfig(
  config: ModelConfig,
  options: PlanOptions,
  { storedIn = storedDType(config), task = taskOf(config), without }: Planned = {},
): Promise<Plan> {
  const model = buildModel(config, task, without);
  checkPlanOptions(model, options);
  const { deviceMap = 'auto', maxMemory, wiring, devices, quantizedOffload } = options;
  const dense = floatDType('torchDtype', options.torchDtype ?? 'auto', 'planFor') ?? storedIn;
  const { stored, wanted } = quantizationFor(config, options, 'planFor');
  const request = {
    tree: planTree(config, task, without),
    dtype: names[dense],
    maxMemory,
    wiring,
    quantizedOffload,
    deviceMap,
    devices: maxMemory || devices ? devices : await devicesHere(),
    quantization: plannedQuantization(stored ?? wanted),
  };
  return options.context === undefined ? planPlacement(request) : planWithCache(model, request, options, dense);
}

const names = { f32: 'float32', f16: 'float16', bf16: 'bfloat16' } as const satisfies Record<FloatDType, string>;

/** Free memory of this machine's devices. @throws ConfigError that says why there is none */
async function devicesHere(): Promise<DeviceReport> {
  const found = await freeMemory();
  if (found.length > 0) return found;
  throw new ConfigError('planFor', 'this machine has no device to plan for', {
    why: listDevices()
      .map(({ type, problem }) => `${type}: ${problem ?? 'none'}`)
      .join('; '),
    fix: 'give maxMemory, for example { 0: "24GiB", cpu: "64GiB" }',
  });
}

/**
 * Plans with room for the cache. Its dtype follows from the device, and the device from the plan: layers that turn out
 * to live on the host are given the host's dtype, until no more of them do.
 */
function planWithCache(model: Model, request: PlanRequest, options: PlanOptions, dense: FloatDType): Plan {
  const { context, batch = 1 } = options;
  const given = options.kvDtype;
  const bytesOn = (device: 'cpu' | 'gpu') =>
    dtypeBytes(cacheDType(given, activationDType(computeDTypes[device], dense)));
  const layers = stateByModule(model);
  const onHost = new Set<string>();
  const planOnce = (): Plan => {
    const bytesOf = (part: keyof StateSize) =>
      layers.map(({ path, elements }) => elements[part] * bytesOn(onHost.has(path) ? 'cpu' : 'gpu'));
    const kvCache = {
      layers: layers.map(({ path }) => path),
      bytesPerToken: bytesOf('perToken'),
      bytesPerSequence: bytesOf('perSequence'),
      context: context!,
      batch,
      pageTokens: kvBlockSize,
    };
    return planPlacement({ ...request, reserve: { kvCache } });
  };
  for (;;) {
    const plan = refusedOr(planOnce);
    const { deviceMap } = plan instanceof PlanRefusedError ? plan.plan : plan;
    const deviceOf = deviceFinder(deviceMap);
    const more = layers.filter(({ path }) => !onHost.has(path) && typeof deviceOf(path) !== 'number');
    if (bytesOn('cpu') === bytesOn('gpu') || more.length === 0) {
      if (plan instanceof PlanRefusedError) throw plan;
      return plan;
    }
    for (const { path } of more) onHost.add(path);
  }
}

function refusedOr(plan: () => Plan): Plan | PlanRefusedError {
  try {
    return plan();
  } catch (error) {
    if (error instanceof PlanRefusedError) return error;
    throw error;
  }
}

/** The modules that keep state, with the numbers of it. */
function stateByModule(model: Model): { path: string; elements: StateSize }[] {
  const paths = new Map([...model.walk()].map(({ path, module }) => [module, path]));
  const sizes = new Map<string, StateSize>();
  for (const spec of model.state) {
    const path = paths.get(spec.owner)!;
    const [before, more] = [sizes.get(path), stateElements(spec)];
    sizes.set(path, {
      perToken: (before?.perToken ?? 0) + more.perToken,
      perSequence: (before?.perSequence ?? 0) + more.perSequence,
    });
  }
  return [...sizes].map(([path, elements]) => ({ path, elements }));
}

/**
 * The one device that loading uses.
 * @throws UnsupportedError when the plan needs several, with the plan.
 */
export async function placeOnOne(
  config: ModelConfig,
  options: PlacementOptions & QuantizationOptions & Pick<PlanOptions, 'torchDtype'>,
  planned?: Planned,
): Promise<string> {
  const target = normalizeDeviceMap(options.deviceMap) ?? { '': 'cpu' };
  const devices = isStrategy(target) && !options.maxMemory ? await devicesHere() : undefined;
  const hasGpu = devices?.some(([device]) => typeof device === 'number') ?? true;
  const simple = !isStrategy(target) && Object.keys(target).join() === '';
  const deviceMap = simple
    ? target
    : (await planConfig(config, { ...options, deviceMap: target, devices, quantizedOffload: !hasGpu }, planned))
        .deviceMap;
  const used = [...new Set(Object.values(deviceMap).map(planDevice))];
  if (used.length === 1 && used[0] !== 'disk') return typeof used[0] === 'number' ? `cuda:${used[0]}` : String(used[0]);
  throw new UnsupportedError('fromPretrained', `this plan needs ${used.length} devices (${used.join(', ')})`, {
    deviceMap,
    why: 'running one model over several devices is not there yet',
    fix: 'raise maxMemory of one device, quantize, or use a smaller model',
  });
}
