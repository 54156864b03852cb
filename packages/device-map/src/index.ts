export { type BalanceOptions, getBalancedMemory } from './balance.js';
export { type BarOptions, renderBars } from './bars.js';
export { type MapReport, assertDeviceMap, checkDeviceMap } from './check.js';
export { cleanDeviceMap } from './clean-map.js';
export { describeMessage } from './describe.js';
export { dtypeBytes, storedBytes } from './dtypes.js';
export { type Explanation, type Placement, type Rejection, deviceName } from './explain.js';
export type { Step } from './fill.js';
export { type InferOptions, type InferredMap, inferAutoDeviceMap } from './infer.js';
export { checkTiedParametersOnSameDevice, deviceFinder, expandDeviceMap, findDevice, loadDevice } from './lookup.js';
export { type Strategy, isStrategy, normalizeDeviceMap, planDevice, strategies } from './map-argument.js';
export { type MaxMemory, type MaxMemoryOptions, getMaxMemory } from './max-memory.js';
export { formatSize, parseSize } from './parse-size.js';
export { type Plan, PlanRefusedError, planPlacement } from './plan.js';
export type { PlanRequest } from './request.js';
export type { KvCacheReserve, Reserve } from './reserve.js';
export { type SizeOptions, computeBufferSize, computeModuleSizes } from './measure.js';
export { getMaxLayerSize } from './sizes.js';
export { findTiedParameters, getModuleSizeWithTies } from './ties.js';
export {
  type BufferEntry,
  type ModuleEntry,
  type ModuleTree,
  type ParameterEntry,
  type Tree,
  readTree,
} from './tree.js';
export type { Budgets, ByteBudgets, Device, DeviceMap, DeviceMapInput, DeviceReport, Message, Size } from './types.js';
export type { DeviceUsage } from './usage.js';
export type { Wiring } from './wiring/rules.js';
export { type Conversion, type Quantization, planQuantization } from './wiring/transformers-5.js';
