import { ConfigError, type ErrorDetail, PlacementError } from '@q/config';
import { balance } from './balance.js';
import { assertDeviceMap } from './check.js';
import { cleanDeviceMap } from './clean-map.js';
import { type Explanation, type Placement, givenPlacements, placementTable, placementsOf } from './explain.js';
import { type Filling, fill } from './fill.js';
import { tieMessages, untiedMessage } from './infer.js';
import { checkTiedParametersOnSameDevice, deviceFinder } from './lookup.js';
import { type Strategy, isStrategy, normalizeDeviceMap, planDevice } from './map-argument.js';
import { getMaxMemory } from './max-memory.js';
import { type PlanRequest, checkRequest } from './request.js';
import { fixedReserves, kvCacheBytes, lessReserves, withCaches } from './reserve.js';
import { type SizeOptions, bufferMeasure, measureOf } from './measure.js';
import { type Measure, type Sizes, layerFinder, measureTree } from './sizes.js';
import { tiedGroups } from './ties.js';
import { type Tree, type Unsplittable, readTree, rootItems, unsplittable } from './tree.js';
import { type ByteBudgets, type Device, type DeviceMap, type Message, isOffload } from './types.js';
import { type DeviceUsage, cacheHost, usageOf } from './usage.js';
import { type Rules, rulesOf } from './wiring/rules.js';
import { type Conversion, planQuantization, quantizedOffload, refusesOffload } from './wiring/transformers-5.js';

/** A placement, and everything that led to it. */
export interface Plan {
  /** `{ module: device }`, to give to the loader. */
  readonly deviceMap: DeviceMap;
  /** Bytes per device: GPUs by id, then mps, cpu, disk. */
  readonly usage: readonly DeviceUsage[];
  readonly messages: readonly Message[];
  /** Bytes of the whole model, caches included. */
  readonly size: number;
  /** Bytes of the largest layer, which is kept free on the first GPU and the host while something is left to place. */
  readonly largestLayer: number;
  /** Budgets after parsing, reserves and balancing. */
  readonly maxMemory: ByteBudgets;
  /** Budgets that were filled: `maxMemory` with the headroom for quantized models. */
  readonly adjusted: ByteBudgets;
  /** Patterns of the modules that are not quantized; null without quantization. */
  readonly notConverted: readonly string[] | null;
  /** The linears that are quantized; null without quantization. */
  readonly converted: readonly string[] | null;
  /** Device of a module, parameter or buffer; undefined when nothing covers the name. */
  deviceOf(name: string): Device | undefined;
  /** Why each module is where it is. */
  explain(): Explanation;
}

/** A plan that must not be used, with the plan. `code` is `placement`, `fields.rule` says why. */
export class PlanRefusedError extends PlacementError {
  declare readonly plan: Plan;

  constructor(what: string, detail: ErrorDetail, plan: Plan) {
    super('planPlacement', what, detail);
    // Not enumerable: an uncaught error should print its message, not a whole plan.
    Object.defineProperty(this, 'plan', { value: plan });
  }
}

/** What is the same for every way of planning. */
interface Subject {
  request: PlanRequest;
  tree: Tree;
  rules: Rules;
  measure: Measure;
  sizes: Sizes;
  caches: ReadonlyMap<string, number>;
  whole: Unsplittable;
  conversion: Conversion | null;
}

/** What a way of planning decides. */
interface Decision {
  deviceMap: DeviceMap;
  placements: () => Placement[];
  messages: Message[];
  /** What each device may hold. */
  budgets: ReadonlyMap<Device, number>;
  reserves: ReadonlyMap<Device, number>;
  maxMemory: ByteBudgets;
  adjusted: ByteBudgets;
}

/**
 * Plans where a model goes: by a strategy within budgets, on one device, or by a map that is checked.
 *
 * With the wiring `q` (the default) no budget is ever exceeded. `usage` and `explain()` tell what was decided and why.
 * Cost: linear in the number of tensors for each split; planning a model of 1,000 layers takes some tens of
 * milliseconds. Sources: accelerate `load_checkpoint_and_dispatch`, transformers 5 `_get_device_map`.
 * @throws ConfigError for options, sizes, devices or trees that cannot be right
 * @throws PlacementError (`fields.rule` `uncovered_parameters`) for a map that misses modules
 * @throws PlanRefusedError (`fields.rule` `quantized_offload`, `budget_exceeded`, `device_unavailable`), with the plan
 *   that was refused
 */
export const planPlacement = (request: PlanRequest): Plan => {
  checkRequest(request);
  const target = normalizeDeviceMap(request.deviceMap ?? 'auto', { localRank: request.localRank }) ?? 'auto';
  const fixed = isStrategy(target) ? null : devicesOf(target);
  const subject = readSubject(request, fixed);
  const decision = isStrategy(target) ? bestEffort(subject, target) : byMap(subject, fixed!);
  decision.messages.push(...skipMessages(subject));
  const plan = finish(subject, decision);
  const { quantization, quantizedOffload: lifted = false } = request;
  if (quantization && !lifted && refusesOffload(quantization, plan.deviceMap))
    throw new PlanRefusedError(quantizedOffload.what, quantizedOffload.detail, plan);
  if (subject.rules.strict) refuseImpossible(plan, request);
  return plan;
};

/** Python says nothing of patterns without effect. */
const skipMessages = ({ rules, conversion }: Subject): Message[] =>
  rules.strict && conversion !== null && conversion.withoutEffect.length > 0
    ? [{ level: 'warning', code: 'skip_without_effect', patterns: conversion.withoutEffect }]
    : [];

const devicesOf = (map: DeviceMap): DeviceMap =>
  Object.fromEntries(Object.entries(map).map(([path, device]) => [path, planDevice(device)]));

const readSubject = (request: PlanRequest, fixed: DeviceMap | null): Subject => {
  const rules = rulesOf(request.wiring ?? 'q');
  const linked = readTree(request.tree);
  const tree = request.tied === false ? { ...linked, tied: [] } : linked;
  const { quantization = null } = request;
  const conversion =
    quantization === null
      ? null
      : planQuantization(tree, quantization, quantization.cpuOffload === true ? fixed : null);
  const measure = withExactBytes(tree, measureOf(tree, sizeOptions(request), conversion), request.tensorBytes);
  const caches = kvCacheBytes(tree, request.reserve?.kvCache);
  return {
    request,
    tree,
    rules,
    measure,
    sizes: withCaches(measureTree(tree, measure), caches),
    caches,
    whole: unsplittable(tree, request.noSplit, caches.keys()),
    conversion,
  };
};

/** Q's own wiring is the default here. */
const sizeOptions = (request: PlanRequest): SizeOptions => ({ ...request, wiring: request.wiring ?? 'q' });

const withExactBytes = (tree: Tree, measure: Measure, exact: PlanRequest['tensorBytes']): Measure => {
  if (exact === undefined) return measure;
  const bytes = exact instanceof Map ? exact : new Map(Object.entries(exact));
  for (const [name, size] of bytes) {
    if ((tree.parameters.has(name) || tree.buffers.has(name)) && Number.isFinite(size) && size >= 0) continue;
    throw new ConfigError('planPlacement', 'tensorBytes has something that is not the size of a tensor', {
      name,
      size,
      fix: 'give bytes for paths of the tree',
    });
  }
  return { skip: measure.skip, bytes: (tensor) => bytes.get(tensor.path) ?? measure.bytes(tensor) };
};

/**
 * Fills budgets by a strategy. Layers on disk keep their cache on the host, so that room is taken from it before
 * filling.
 */
const bestEffort = (subject: Subject, strategy: Strategy): Decision => {
  const { request, tree, rules, caches } = subject;
  const given = getMaxMemory(request.maxMemory, { devices: request.devices, wiring: rules.wiring });
  const devices = given.budgets.map(([device]) => device);
  const reserves = fixedReserves(request.reserve ?? {}, devices);
  const host = cacheHost(devices);
  for (let hostCache = 0; ;) {
    const aside = new Map(reserves).set(host, (reserves.get(host) ?? 0) + hostCache);
    const decision = fillBudgets(subject, strategy, lessReserves(given.budgets, aside));
    const deviceOf = deviceFinder(decision.deviceMap);
    const onDisk = [...caches].reduce((sum, [path, bytes]) => (deviceOf(path) === 'disk' ? sum + bytes : sum), 0);
    if (onDisk > hostCache) {
      hostCache = onDisk;
      continue;
    }
    const messages = [...given.messages, ...decision.messages, ...tieMessages(tree, rules, decision.deviceMap)];
    return { ...decision, messages, budgets: new Map(given.budgets), reserves };
  }
};

type Filled = Omit<Decision, 'budgets' | 'reserves'>;

/**
 * Fills budgets once; where even shares would send more to cpu and disk than filling the GPUs one after another, Q's
 * wiring does the latter. So a small GPU beside a large one never makes a plan worse. Detected memory keeps its margin
 * of 10 %.
 */
const fillBudgets = (subject: Subject, strategy: Strategy, budgets: ByteBudgets): Filled => {
  const even = fillOnce(subject, strategy, budgets);
  if (!subject.rules.strict || strategy === 'sequential') return even;
  const offloaded = offloadedBytes(subject, even.deviceMap);
  if (offloaded === 0) return even;
  const shares = new Map(even.maxMemory);
  const margin = isDetected(subject.request) ? 0.9 : 1;
  const raised = budgets.map(([device, bytes]): [Device, number] => [
    device,
    isOffload(device) ? bytes : Math.max(shares.get(device)!, bytes * margin),
  ]);
  const inTurn = fillOnce(subject, 'sequential', raised);
  const bytes = offloaded - offloadedBytes(subject, inTurn.deviceMap);
  if (bytes <= 0) return even;
  const filled = strategy === 'balanced_low_0' ? withLeastOnFirst(subject, raised, shares, inTurn) : inTurn;
  return { ...filled, messages: [...filled.messages, { level: 'info', code: 'balance_given_up', bytes }] };
};

/** Halvings of the range in which the first GPU's budget is looked for: to a thousandth of it. */
const SEARCH_STEPS = 10;

/**
 * The plan that offloads no more than `most`, which fills every GPU, with as little as possible on the first one: it is
 * the last to be filled.
 * @param shares what balancing gave the devices
 */
const withLeastOnFirst = (
  subject: Subject,
  budgets: ByteBudgets,
  shares: ReadonlyMap<Device, number>,
  most: Filled,
): Filled => {
  const first = budgets.find(([device]) => typeof device === 'number')?.[0];
  if (first === undefined) return most;
  const target = offloadedBytes(subject, most.deviceMap);
  let best = most;
  let [low, high] = [Math.min(shares.get(first)!, new Map(budgets).get(first)!), new Map(budgets).get(first)!];
  for (let step = 0; step < SEARCH_STEPS && low < high; step++) {
    const middle = step === 0 ? low : (low + high) / 2;
    const tried = fillOnce(
      subject,
      'sequential',
      budgets.map(([device, bytes]): [Device, number] => [device, device === first ? middle : bytes]),
    );
    if (offloadedBytes(subject, tried.deviceMap) <= target) [best, high] = [tried, middle];
    else low = middle;
  }
  return best;
};

const isDetected = ({ maxMemory }: PlanRequest): boolean => maxMemory === null || maxMemory === undefined;

const offloadedBytes = ({ tree, measure, caches }: Subject, deviceMap: DeviceMap): number => {
  if (!Object.values(deviceMap).some(isOffload)) return 0;
  return usageOf({ tree, measure, deviceMap, budgets: new Map(), caches, reserves: new Map() })
    .filter(({ device }) => isOffload(device))
    .reduce((sum, { weights }) => sum + weights, 0);
};

const fillOnce = (subject: Subject, strategy: Strategy, budgets: ByteBudgets): Filled => {
  const { request, tree, rules, sizes, whole } = subject;
  const balanced =
    strategy === 'sequential'
      ? { budgets, messages: [] }
      : balance({
          tree,
          sizes,
          whole,
          budgets,
          detected: isDetected(request),
          lowZero: strategy === 'balanced_low_0',
          rules,
        });
  const headroom = request.headroom ?? (request.quantization ? 0.9 : 1);
  const adjusted = balanced.budgets.map(([device, bytes]): [Device, number] => [
    device,
    headroom === 1 ? bytes : bytes * headroom,
  ]);
  const filling: Filling = {
    tree,
    sizes,
    measure: rules.wiring === 'accelerate' ? bufferMeasure(tree, sizeOptions(request)) : subject.measure,
    whole,
    budgets: adjusted,
    rules,
    offloadBuffers: request.offloadBuffers ?? false,
    fallbackAllocation: request.fallbackAllocation ?? false,
  };
  const filled = fill(filling);
  const untied = rules.wiring === 'accelerate' ? untiedMessage(readTree(request.tree), request.tied ?? true) : [];
  return {
    deviceMap: request.cleanResult === false ? Object.fromEntries(filled.placed) : cleanDeviceMap(filled.placed),
    placements: () => placementsOf(filled.steps, (path) => sizes.get(path) ?? 0),
    messages: [...balanced.messages, ...untied, ...filled.messages],
    maxMemory: balanced.budgets,
    adjusted,
  };
};

/** Follows a caller's map, after checking it. */
const byMap = ({ request, tree, rules, sizes }: Subject, deviceMap: DeviceMap): Decision => {
  const { unknownKeys } = assertDeviceMap(tree, deviceMap);
  const unknown: Message[] =
    unknownKeys.length === 0 ? [] : [{ level: 'warning', code: 'unknown_keys', keys: unknownKeys }];
  const limited = !isDetected(request) || request.devices !== undefined;
  const { budgets, messages } = limited
    ? getMaxMemory(request.maxMemory, { devices: request.devices })
    : { budgets: [], messages: [] };
  const used = new Set([...budgets.map(([device]) => device), ...Object.values(deviceMap)]);
  return {
    deviceMap,
    placements: () => givenPlacements(deviceMap, (path) => sizes.get(path) ?? 0),
    messages: [...messages, ...unknown, ...checkTiedParametersOnSameDevice(tiedGroups(tree, rules), deviceMap)],
    budgets: new Map(budgets),
    reserves: fixedReserves(request.reserve ?? {}, [...used]),
    maxMemory: budgets,
    adjusted: budgets,
  };
};

const finish = ({ tree, measure, sizes, caches, whole, conversion }: Subject, decision: Decision): Plan => {
  const { deviceMap, budgets, reserves, messages, maxMemory, adjusted, placements } = decision;
  return {
    deviceMap,
    usage: usageOf({ tree, measure, deviceMap, budgets, caches, reserves }),
    messages,
    size: sizes.get('') ?? 0,
    largestLayer: layerFinder(sizes, whole)(rootItems(tree)).size,
    maxMemory,
    adjusted,
    notConverted: conversion?.notConverted ?? null,
    converted: conversion?.converted ?? null,
    deviceOf: deviceFinder(deviceMap),
    explain: () => {
      const rows = placements();
      return { placements: rows, table: placementTable(rows) };
    },
  };
};

/** @throws PlanRefusedError for a plan that uses a GPU that is not there, or that exceeds a budget */
const refuseImpossible = (plan: Plan, { devices }: PlanRequest): void => {
  const usable = devices?.flatMap(([device, free]) => (typeof device === 'number' && free !== null ? [device] : []));
  const absent = plan.usage.find(
    ({ device, modules }) => typeof device === 'number' && modules > 0 && usable?.includes(device) === false,
  );
  if (absent !== undefined) {
    const detail = {
      rule: 'device_unavailable',
      device: absent.device,
      available: usable,
      fix: 'use the GPUs that are there',
    };
    throw new PlanRefusedError('modules are placed on a GPU that is not available', detail, plan);
  }
  const full = plan.usage.find(({ free }) => free < 0);
  if (full !== undefined) throw new PlanRefusedError('a device would hold more than its budget', exceeded(full), plan);
};

const exceeded = ({ device, budget, weights, kvCache, reserved }: DeviceUsage): ErrorDetail => ({
  rule: 'budget_exceeded',
  device,
  budget,
  weights,
  kvCache,
  reserved,
  fix: 'give the device more memory, shorten the context or the batch, or move modules elsewhere',
});
