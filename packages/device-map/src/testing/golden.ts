import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { QError } from '@q/config';
import {
  type Device,
  type DeviceReport,
  type Message,
  type ModuleTree,
  type Plan,
  PlanRefusedError,
  type Quantization,
  type Size,
  type Strategy,
  type Wiring,
  checkDeviceMap,
  checkTiedParametersOnSameDevice,
  cleanDeviceMap,
  computeBufferSize,
  computeModuleSizes,
  dtypeBytes,
  expandDeviceMap,
  findDevice,
  findTiedParameters,
  getMaxLayerSize,
  getMaxMemory,
  getModuleSizeWithTies,
  loadDevice,
  normalizeDeviceMap,
  parseSize,
  planPlacement,
  planQuantization,
} from '../index.js';

/** One golden case; which fields are there depends on `kind`. */
export interface Case {
  id: string;
  kind: string;
  model?: string;
  tree?: ModuleTree;
  wiring?: Wiring;
  quirk?: string;
  strategy?: Strategy;
  maxMemory?: [Device, Size][] | null;
  hardware?: DeviceReport;
  dtype?: string | null;
  modelDtype?: string;
  specialDtypes?: Record<string, string>;
  noSplit?: string[];
  tied?: boolean | string[][];
  options?: { offloadBuffers?: boolean; fallbackAllocation?: boolean; clean?: boolean };
  quantization?: Quantization;
  deviceMap?: Record<string, Device> | [string, Device][];
  input?: string | number | Record<string, Device> | null;
  localRank?: number;
  names?: string[];
  parameters?: [string, number][];
  tiedParameters?: string[];
  size?: number;
  sizes?: Record<string, number>;
  modules?: string[];
  expect: unknown;
}

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const read = <T>(name: string): T =>
  JSON.parse(gunzipSync(readFileSync(new URL(`../../fixtures/${name}`, import.meta.url))).toString()) as T;

export const models = read<Record<string, ModuleTree>>('models.json.gz');
export const cases = read<{ cases: Case[] }>('cases.json.gz').cases;

export const treeOf = (golden: Case): ModuleTree => golden.tree ?? models[golden.model!]!;

/** `error.code` of a golden is `fields.rule` of a QError. */
const errorOf = (error: unknown): { error: { code: string } } => {
  if (error instanceof QError && typeof error.fields.rule === 'string') return { error: { code: error.fields.rule } };
  throw error;
};

const attempt = (run: () => object): object => {
  try {
    return run();
  } catch (error) {
    return errorOf(error);
  }
};

const withMessages = (messages: readonly Message[]): object => (messages.length > 0 ? { messages } : {});

const planResult = (plan: Plan): object => ({
  ...(plan.notConverted === null ? {} : { notConverted: plan.notConverted }),
  maxMemory: plan.maxMemory,
  ...(JSON.stringify(plan.adjusted) === JSON.stringify(plan.maxMemory) ? {} : { adjusted: plan.adjusted }),
  deviceMap: plan.deviceMap,
  ...withMessages(plan.messages),
});

export const runPlan = (golden: Case, wiring = golden.wiring): object => {
  const { dtype, modelDtype, specialDtypes, noSplit, quantization, options = {} } = golden;
  const tied = golden.tied === false ? { tied: false } : {};
  const sizes = { wiring, dtype, modelDtype, specialDtypes, quantization, ...tied };
  const tree = { ...treeOf(golden), noSplit };
  const bytes = computeModuleSizes(tree, sizes);
  const facts = { size: bytes[''], largestLayer: getMaxLayerSize(tree, bytes).size };
  const kept = quantization === undefined ? {} : { notConverted: planQuantization(tree, quantization).notConverted };
  try {
    const plan = planPlacement({
      tree,
      ...sizes,
      deviceMap: golden.strategy,
      maxMemory: golden.maxMemory,
      devices: golden.hardware,
      offloadBuffers: options.offloadBuffers,
      fallbackAllocation: options.fallbackAllocation,
      cleanResult: options.clean,
    });
    return { ...facts, ...planResult(plan) };
  } catch (error) {
    return {
      ...facts,
      ...kept,
      ...(error instanceof PlanRefusedError ? planResult(error.plan) : {}),
      ...errorOf(error),
    };
  }
};

const runSizes = (golden: Case): object => {
  const { wiring, dtype, modelDtype, specialDtypes, noSplit, quantization } = golden;
  const tree = treeOf(golden);
  const options = { wiring, dtype, modelDtype, specialDtypes, quantization };
  const all = computeModuleSizes(tree, options);
  const firstOfLists = (path: string): boolean => path.split('.').every((part) => part === '0' || !/^\d+$/.test(part));
  const sizes = Object.fromEntries(
    Object.entries(all).filter(([path]) => golden.model === undefined || firstOfLists(path)),
  );
  const layers = noSplit === undefined ? null : getMaxLayerSize(tree, all, noSplit);
  const largestLayer =
    layers === null
      ? {}
      : { largestLayer: { size: layers.size, names: layers.names.slice(0, 3), count: layers.names.length } };
  return { sizes, buffers: computeBufferSize(tree, options), ...largestLayer };
};

const runCheck = (golden: Case): object => {
  const { valid, uncovered, unknownKeys } = checkDeviceMap(treeOf(golden), golden.deviceMap!);
  const failed = valid ? {} : { error: { code: 'uncovered_parameters' }, uncovered };
  return { valid, ...failed, ...(unknownKeys.length > 0 ? { unknownKeys } : {}) };
};

const runLookup = ({ deviceMap, names }: Case): object => ({
  parents: Object.fromEntries(names!.map((name) => [name, findDevice(deviceMap!, name) ?? null])),
  regex: expandDeviceMap(deviceMap!, names!),
  loadOn: Object.fromEntries(names!.map((name) => [name, loadDevice(deviceMap!, name)])),
});

const runTied = ({ tied, deviceMap }: Case): object => {
  try {
    return { messages: checkTiedParametersOnSameDevice(tied as string[][], deviceMap!) };
  } catch (error) {
    return { messages: [], ...errorOf(error) };
  }
};

/** How to run a case of each kind. */
export const runners: Record<string, (golden: Case) => unknown> = {
  plan: (golden) => runPlan(golden),
  'module-sizes': runSizes,
  size: ({ input }) => attempt(() => ({ value: parseSize(input as string | number) })),
  'dtype-size': ({ dtype }) => dtypeBytes(dtype!),
  'max-memory': ({ maxMemory, hardware, wiring }) =>
    attempt(() => {
      const { budgets, messages } = getMaxMemory(maxMemory, { devices: hardware, wiring });
      return { value: budgets, ...withMessages(messages) };
    }),
  'check-map': runCheck,
  'clean-map': ({ deviceMap }) => cleanDeviceMap(deviceMap!),
  'map-argument': ({ input, localRank }) => attempt(() => ({ value: normalizeDeviceMap(input, { localRank }) })),
  lookup: runLookup,
  'tied-devices': runTied,
  'tied-groups': ({ parameters }) => findTiedParameters(parameters!),
  'size-with-ties': ({ tiedParameters, size, sizes, modules }) =>
    getModuleSizeWithTies(tiedParameters!, size!, sizes!, modules!),
  quantization: (golden) =>
    attempt(() => {
      const { notConverted, converted, linearsKept } = planQuantization(
        treeOf(golden),
        golden.quantization!,
        golden.deviceMap,
      );
      return { notConverted, converted: converted.length, linearsKept };
    }),
};

/** Objects by sorted keys and errors by code, so that equal results are equal text. */
export const canonical = (value: unknown): Json => {
  if (Array.isArray(value)) return value.map(canonical);
  if (typeof value !== 'object' || value === null) return value as Json;
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  const sorted = entries.sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(
    sorted.map(([key, item]) => [key, key === 'error' ? { code: (item as { code: string }).code } : canonical(item)]),
  );
};
