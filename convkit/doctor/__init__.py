"""Why is it slow? What this process finds on this machine, what that means, and what to do about it."""
