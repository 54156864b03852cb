import { preset } from '../../tooling/vitest.js';
export default preset({ testTimeout: 120_000, hookTimeout: 120_000, fileParallelism: false });
