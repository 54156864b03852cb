import { conformanceOn } from './suite.js';

conformanceOn('avx2', 3);
