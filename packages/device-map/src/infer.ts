import { cleanDeviceMap } from './clean-map.js';
import { type Step, fill } from './fill.js';
import { checkTiedParametersOnSameDevice } from './lookup.js';
import { getMaxMemory } from './max-memory.js';
import { type SizeOptions, bufferMeasure, measureOf } from './measure.js';
import { measureTree } from './sizes.js';
import { tiedGroups } from './ties.js';
import { type ModuleTree, type Tree, readTree, unsplittable } from './tree.js';
import type { Budgets, DeviceMap, DeviceReport, Message } from './types.js';
import { type Rules, rulesOf } from './wiring/rules.js';

export interface InferOptions extends SizeOptions {
  /** Budgets; null or absent: what the devices report. */
  maxMemory?: Budgets | null;
  devices?: DeviceReport;
  /** Classes that are not split. Default: those of the tree. */
  noSplit?: readonly string[];
  /** Buffers of offloaded modules are offloaded too, so no GPU has to hold them. Default false. */
  offloadBuffers?: boolean;
  /** When nothing fits a device, look further for a module that does. Default false. */
  fallbackAllocation?: boolean;
  /** Group modules that share a device. Default true. */
  cleanResult?: boolean;
}

export interface InferredMap {
  deviceMap: DeviceMap;
  messages: Message[];
  steps: Step[];
}

/** Whether the config promises tied embeddings that the tree does not have. */
export const untiedMessage = (tree: Tree, tied: boolean): Message[] =>
  tree.tieWordEmbeddings && tree.outputEmbeddings !== null && (!tied || tree.tied.length === 0)
    ? [{ level: 'warning', code: 'weights_not_tied' }]
    : [];

/**
 * A device map of a model for given budgets, filling the devices in order (strategy `sequential`; see
 * `getBalancedMemory` for even filling and `planPlacement` for everything at once). Source: accelerate
 * `infer_auto_device_map`.
 * @throws ConfigError as `getMaxMemory` and `readTree`
 */
export const inferAutoDeviceMap = (source: ModuleTree | Tree, options: InferOptions = {}): InferredMap => {
  const linked = readTree(source);
  const tied = options.tied ?? true;
  const tree = tied ? linked : { ...linked, tied: [] };
  const rules = rulesOf(options.wiring ?? 'accelerate');
  const memory = getMaxMemory(options.maxMemory, { devices: options.devices, wiring: rules.wiring });
  const filled = fill({
    tree,
    sizes: measureTree(tree, measureOf(tree, options)),
    measure: bufferMeasure(tree, options),
    whole: unsplittable(tree, options.noSplit),
    budgets: memory.budgets,
    rules,
    offloadBuffers: options.offloadBuffers ?? false,
    fallbackAllocation: options.fallbackAllocation ?? false,
  });
  const deviceMap = options.cleanResult === false ? Object.fromEntries(filled.placed) : cleanDeviceMap(filled.placed);
  const untied = rules.wiring === 'accelerate' ? untiedMessage(linked, tied) : [];
  return {
    deviceMap,
    steps: filled.steps,
    messages: [...memory.messages, ...untied, ...filled.messages, ...tieMessages(tree, rules, deviceMap)],
  };
};

/** Messages about ties over several devices, where the wiring looks for them. */
export const tieMessages = (tree: Tree, rules: Rules, map: DeviceMap): Message[] =>
  rules.checksTies ? checkTiedParametersOnSameDevice(tiedGroups(tree, rules), map) : [];
